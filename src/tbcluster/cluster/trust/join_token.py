"""What is typed on a machine that shall join: where the cluster is, its key, and a secret."""

import base64
import binascii
import ipaddress
import zlib
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from tbcluster.cluster.trust.identity import Key, Port, id_of
from tbcluster.errors import TrustError

PREFIX = "tbj-"
MAX_ADDRESSES = 16
# Far above what MAX_ADDRESSES give.
MAX_CHARACTERS = 2048
CHECKSUM_BYTES = 4

_Address = Annotated[bytes, msgspec.Meta(min_length=4, max_length=16)]


class _Content(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    server_key: Key
    secret: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{16,64}\Z")]
    port: Port
    expires: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
    addresses: Annotated[tuple[_Address, ...], msgspec.Meta(max_length=MAX_ADDRESSES)]


@dataclass(frozen=True, slots=True)
class JoinToken:
    """An invitation to one machine.

    Attributes:
        server_key: The cluster's public key: the joining machine talks to nobody else.
        secret: Admits whoever has it, once.
        addresses: IP addresses of the head node, without scopes.
        port: The control port; machines join at the next one.
        expires: Unix time, seconds, by the head node's clock.
    """

    server_key: str
    secret: str = field(repr=False)
    addresses: tuple[str, ...]
    port: int
    expires: int

    @property
    def cluster_id(self) -> str:
        """The id that follows from the cluster's key."""
        return id_of(self.server_key)

    def encode(self) -> str:
        """As text without blanks."""
        packed = tuple(ipaddress.ip_address(one).packed for one in self.addresses[:MAX_ADDRESSES])
        content = msgspec.msgpack.encode(
            _Content(self.server_key, self.secret, self.port, self.expires, packed)
        )
        return _spelled(content + _checksum(content))

    @classmethod
    def decode(cls, text: str) -> "JoinToken":
        """The token that this text is; blanks and line ends in it do not count.

        Raises:
            TrustError: It is none, or a character of it is missing or wrong.
        """
        content = _checked("".join(text.split()))
        try:
            found = msgspec.msgpack.decode(content, type=_Content)
            addresses = tuple(str(ipaddress.ip_address(packed)) for packed in found.addresses)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise TrustError(
                "this token was made by another version of tbcluster: install the version of the "
                "head node here"
            ) from error
        return cls(found.server_key, found.secret, addresses, found.port, found.expires)


def _checked(text: str) -> bytes:
    if not text.startswith(PREFIX):
        raise TrustError(
            f"this is no token: one begins with {PREFIX}. Make one with `tbcluster invite` on the "
            "head node"
        )
    if len(text) > MAX_CHARACTERS:
        raise TrustError(f"this is no token: it has {len(text):,} characters")
    try:
        sealed = base64.urlsafe_b64decode(text[len(PREFIX) :] + "=" * (-(len(text) - 4) % 4))
    except (binascii.Error, ValueError):
        sealed = b""
    content, checksum = sealed[:-CHECKSUM_BYTES], sealed[-CHECKSUM_BYTES:]
    # Spelled again, since several texts can stand for the same bytes.
    if checksum != _checksum(content) or _spelled(sealed) != text:
        raise TrustError(
            "a part of this token is missing or wrong: copy it whole, from tbj- to its last "
            "character"
        )
    return content


def _checksum(content: bytes) -> bytes:
    # A CRC finds every single wrong character; against forgery stands the secret.
    return zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "big")


def _spelled(sealed: bytes) -> str:
    return PREFIX + base64.urlsafe_b64encode(sealed).decode("ascii").rstrip("=")
