"""All interfaces, as `ifconfig -a` tells them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from tbcluster.machine import Address

# en7: flags=8863<UP,BROADCAST,RUNNING> mtu 1500
_HEADING = re.compile(r"([\w.-]+): flags=[0-9a-fA-F]+<([^>]*)>(?:.*?\bmtu (\d{1,9})\b)?")


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """An interface; `members` are what it bridges, `status` is None where none is printed."""

    name: str
    flags: frozenset[str]
    mtu: int
    addresses: tuple[Address, ...]
    members: tuple[str, ...]
    status: str | None

    @property
    def is_up(self) -> bool:
        """Whether it is on, and at the other end of its cable is someone."""
        return "UP" in self.flags and self.status != "inactive"


def interface_states(text: str) -> tuple[InterfaceState, ...]:
    """The interfaces in the order they are printed."""
    return tuple(_state(heading, lines) for heading, lines in _blocks(text))


def _blocks(text: str) -> Iterator[tuple[re.Match[str], list[list[str]]]]:
    """Each interface's heading and the words of its other lines. Publishers lose indentation, so
    a heading is known by its shape."""
    heading: re.Match[str] | None = None
    lines: list[list[str]] = []
    for line in map(str.strip, text.splitlines()):
        if found := _HEADING.match(line):
            if heading is not None:
                yield heading, lines
            heading, lines = found, []
        elif line:
            lines.append(line.split())
    if heading is not None:
        yield heading, lines


def _state(heading: re.Match[str], lines: list[list[str]]) -> InterfaceState:
    found = [address for words in lines if (address := _address(words)) is not None]
    statuses = [" ".join(words[1:]) for words in lines if words[0] == "status:"]
    return InterfaceState(
        name=heading[1],
        flags=frozenset(heading[2].split(",")),
        mtu=int(heading[3] or 0),
        addresses=tuple(found),
        members=tuple(words[1] for words in lines if words[0] == "member:" and len(words) > 1),
        status=statuses[-1] if statuses else None,
    )


def _address(words: Sequence[str]) -> Address | None:
    # inet 192.0.2.10 netmask 0xffffff00 broadcast 192.0.2.255
    # inet6 fe80::1%en7 prefixlen 64 secured scopeid 0x15
    key = {"inet": "netmask", "inet6": "prefixlen"}.get(words[0])
    if key is None or key not in words[2:-1]:
        return None
    size = words[words.index(key, 2) + 1]
    try:
        ip = ip_address(words[1].partition("%")[0])
        length = int(size, 16).bit_count() if key == "netmask" else int(size)
    except ValueError:
        return None
    return Address(str(ip), length) if 0 <= length <= ip.max_prefixlen else None
