"""CURVE keys, and who may connect: libzmq's encryption, with an allow-list for each bound socket.

Both ends of a connection prove the keys they have (http://curvezmq.org). A bound socket asks its
`Guard` about each public key; a socket that connects names the one key it will talk to.
"""

from collections.abc import Callable
from dataclasses import dataclass

import zmq

from tbcluster.errors import TrustError
from tbcluster.wire.control import CurveKeys


@dataclass(frozen=True, slots=True)
class Guard:
    """What a bound socket needs to know.

    Attributes:
        keys: The socket's own.
        allows: Whether the owner of a public key may connect. Called in another thread, once for
            each handshake; connections that stand are not asked again.
    """

    keys: CurveKeys
    allows: Callable[[str], bool]


def new_keys() -> CurveKeys:
    """A key pair that nobody else has."""
    public, secret = zmq.curve_keypair()
    return CurveKeys(public.decode(), secret.decode())


def be_server(socket: zmq.Socket[bytes], keys: CurveKeys, domain: str) -> None:
    """Let in only who completes a CURVE handshake and is allowed by the guard of this domain.

    Raises:
        TrustError: The keys are none.
    """
    _set_key(socket, zmq.CURVE_SECRETKEY, keys.secret, "secret")
    socket.set(zmq.CURVE_SERVER, 1)
    socket.set(zmq.ZAP_DOMAIN, domain.encode())
    # Without it libzmq lets everyone in when nobody answers its question.
    socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)


def be_client(socket: zmq.Socket[bytes], keys: CurveKeys, server_key: str) -> None:
    """Talk only to the owner of `server_key`.

    Raises:
        TrustError: One of the keys is none.
    """
    _set_key(socket, zmq.CURVE_SERVERKEY, server_key, f"server's ({server_key!r})")
    _set_key(socket, zmq.CURVE_PUBLICKEY, keys.public, "public")
    _set_key(socket, zmq.CURVE_SECRETKEY, keys.secret, "secret")


def _set_key(socket: zmq.Socket[bytes], option: int, key: str, which: str) -> None:
    try:
        socket.set(option, key.encode())
    except (zmq.ZMQError, UnicodeEncodeError):
        # Neither text nor cause may show a secret key.
        raise TrustError(f"the {which} key is not 40 characters of Z85") from None
