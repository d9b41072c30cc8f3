"""The coordinator's addresses as text, and the order in which they are tried. Pure.

Written with a port: `192.0.2.1:29640`, `[fe80::1%en3]:29640` or `mini1.local:29640`.
"""

import ipaddress
from collections.abc import Iterable, Sequence

# More than a Mac with all ports cabled has; whoever answers multicast could name any number.
MAX_ADDRESSES = 64


def join_port(host: str, port: int) -> str:
    """A host and a port in one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_port(address: str, default_port: int) -> tuple[str, int]:
    """Host and port of an address, which may lack the port.

    Raises:
        ValueError: What follows the host is no port.
    """
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        port = rest.removeprefix(":")
    elif address.count(":") > 1:
        host, port = address, ""
    else:
        host, _, port = address.partition(":")
    return host, int(port) if port else default_port


def in_order(
    groups: Iterable[Iterable[str]], default_port: int, interfaces: Sequence[str]
) -> tuple[str, ...]:
    """All addresses with their ports, each once, earlier groups first. A link-local one without a
    scope means nothing: it is tried on each of these interfaces.

    Raises:
        ValueError: An address has something else where the port should be.
    """
    found: dict[str, None] = {}
    for group in groups:
        for address in group:
            host, port = split_port(address, default_port)
            hosts = [f"{host}%{name}" for name in interfaces] if lacks_scope(host) else [host]
            found.update((join_port(each, port), None) for each in hosts)
    return tuple(found)[:MAX_ADDRESSES]


def lacks_scope(host: str) -> bool:
    """Whether this is a link-local IPv6 address that does not say on which interface."""
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return address.is_link_local and address.scope_id is None
