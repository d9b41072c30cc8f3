"""Which interface is what, as `networksetup -listallhardwareports` tells it."""

import re
from collections.abc import Mapping

_THUNDERBOLT = re.compile(r"Thunderbolt (\d+)")


def hardware_ports(text: str) -> dict[str, str]:
    """Interface -> name of its hardware port, such as en3 -> "Thunderbolt 2"."""
    ports: dict[str, str] = {}
    name: str | None = None
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "Hardware Port":
            name = value
        elif key == "Device" and name and value:
            ports[value] = name
            name = None
    return ports


def receptacle(port_name: str) -> str | None:
    """The number of a Thunderbolt receptacle, by the name of its hardware port. A dock's network
    card has Thunderbolt in its name too, and the bridge, but no number alone."""
    found = _THUNDERBOLT.fullmatch(port_name)
    return found[1] if found else None


def receptacles(ports: Mapping[str, str]) -> dict[str, str]:
    """Number of a Thunderbolt receptacle -> its interface."""
    return {
        number: interface
        for interface, name in ports.items()
        if (number := receptacle(name)) is not None
    }
