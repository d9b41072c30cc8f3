"""Addresses as people write them: an IP address or a host name, with or without a port. Pure."""

import ipaddress
import re
from typing import NamedTuple

HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
SCOPE = re.compile(r"[A-Za-z0-9_.-]{1,32}")


class HostPort(NamedTuple):
    """An address as it was written; `port` is None where none was given."""

    host: str
    port: int | None


def parse_address(text: str) -> HostPort:
    """An IPv4 or IPv6 address or a host name, with or without a port.

    An IPv6 address with a port stands in brackets. A link-local one may lack its scope: whoever
    dials it tries all interfaces.

    Raises:
        ValueError: It is none of these, or nothing that can be dialled; says what to write.
    """
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    if bracketed:
        return HostPort(_ipv6(bracketed[1]), _port(bracketed[2]))
    if text.count(":") > 1:
        return HostPort(_ipv6(text), None)
    host, colon, port = text.partition(":")
    return HostPort(_name_or_ipv4(host), _port(port if colon else None))


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,5}", text) is None or not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def _ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        address = None
    if address is None or not (address.scope_id is None or SCOPE.fullmatch(address.scope_id)):
        raise ValueError(
            f"{text!r} is no IPv6 address: write fd00::1, or [fd00::1]:29640 with a port"
        )
    return _reachable(text, address)


def _name_or_ipv4(text: str) -> str:
    labels = text.removesuffix(".").split(".")
    # A name that ends in a number is taken for an IPv4 address wherever names are looked up.
    if labels[-1].isdigit():
        try:
            return _reachable(text, ipaddress.IPv4Address(text))
        except ipaddress.AddressValueError:
            raise ValueError(f"{text!r} is no IPv4 address: write 192.168.1.10") from None
    if len(text) > 253 or not all(HOST_LABEL.fullmatch(label) for label in labels):
        raise ValueError(
            f"{text!r} is no address: write an IP address or a host name, such as 192.168.1.10, "
            "fd00::1 or mini1.local, and :PORT if it is not the control port"
        )
    return text


def _reachable(text: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"{text} is no address of one machine: write the one that it has")
    return text
