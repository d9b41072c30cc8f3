"""Network services, as `networksetup -listnetworkserviceorder` tells them."""

import re
from dataclasses import dataclass

# "(3) Wi-Fi"; a service that is off has an asterisk for its number, or before its name.
_SERVICE = re.compile(r"\((\d+|\*)\)\s*(\(\*\)|\*)?\s*(\S.*)")
_DEVICE = re.compile(r"\(Hardware Port:.*,\s*Device:\s*([^,\s)]+)\s*\)")


@dataclass(frozen=True, slots=True)
class NetworkService:
    """A network service and its interface."""

    name: str
    interface: str
    is_enabled: bool


def network_services(text: str) -> tuple[NetworkService, ...]:
    """The services that have an interface, in the order in which macOS prefers them."""
    services = []
    heading: tuple[str, bool] | None = None
    for line in map(str.strip, text.splitlines()):
        if device := _DEVICE.fullmatch(line):
            if heading is not None:
                services.append(NetworkService(heading[0], device[1], heading[1]))
            heading = None
        elif service := _SERVICE.fullmatch(line):
            heading = service[3].strip(), service[1] != "*" and not service[2]
    return tuple(services)
