"""Names of nodes and clusters."""

import re
import socket
from collections.abc import Collection

from tbcluster.errors import TrustError

MAX_LENGTH = 64
NAME_PATTERN = rf"\A[A-Za-z0-9._-]{{1,{MAX_LENGTH}}}\Z"


def is_name(text: str) -> bool:
    """Whether this can be a name."""
    return re.match(NAME_PATTERN, text) is not None


def checked_name(text: str) -> str:
    """The name as it is.

    Raises:
        TrustError: It is none.
    """
    if not is_name(text):
        raise TrustError(
            f"{text[: 2 * MAX_LENGTH]!r} is no name: use up to {MAX_LENGTH} of A-Z a-z 0-9 . _ -"
        )
    return text


def host_name() -> str:
    """A name for this machine: the short one that its system has."""
    return name_from(socket.gethostname())


def name_from(host: str) -> str:
    """A name made of a host's."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", host.split(".")[0])
    return plain.strip("-")[:MAX_LENGTH] or "node"


def free_name(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, or that with the first number after it that is not taken: mini, mini-2, mini-3."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        suffix = f"-{number}"
        name = wanted[: MAX_LENGTH - len(suffix)] + suffix
    return name
