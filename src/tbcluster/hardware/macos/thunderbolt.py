"""Thunderbolt as `system_profiler SPThunderboltDataType -json` tells it.

Each bus has one receptacle, and under `_items` the tree of what is plugged in: docks and drives,
and other computers, which are those with a domain of their own or with services.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tbcluster.hardware.macos.profiler import Item, objects, text_of
from tbcluster.machine import ThunderboltPort

# RDMA's service has this number and no name: macOS prints garbage beside it.
_RDMA_PROTOCOL = 64087
_GENERATION_5_GBPS = 80
_RECEPTACLE = re.compile(r"receptacle_\d+_tag")
_SPEED = re.compile(r"(\d{1,6})\s*Gb/s")


def thunderbolt_ports(
    buses: Sequence[Item], interfaces: Mapping[str, str]
) -> tuple[ThunderboltPort, ...]:
    """The receptacles in order of their numbers; `interfaces` maps a number to its interface."""
    ports = [port for bus in buses if (port := _port(bus, interfaces)) is not None]
    # The chip makes all receptacles alike, and a linked one tells only the speed of its cable.
    if any(port.generation == 5 for port in ports):
        ports = [replace(port, generation=5) for port in ports]
    return tuple(sorted(ports, key=lambda port: (len(port.receptacle), port.receptacle)))


def _port(bus: Item, interfaces: Mapping[str, str]) -> ThunderboltPort | None:
    tag = next((bus[key] for key in bus if _RECEPTACLE.fullmatch(key)), None)
    if not isinstance(tag, dict):
        return None
    receptacle = text_of(tag, "receptacle_id_key") or "?"
    speed = text_of(tag, "current_speed_key") or ""
    gbps = _gbps(speed)
    # "Up to 120 Gb/s" is what an idle port could do.
    is_idle = speed.startswith("Up to")
    plugged = list(_plugged(bus))
    peers = [(item, above) for item, above in plugged if _is_computer(item)]
    peer, via = peers[0] if peers else ({}, ())
    return ThunderboltPort(
        receptacle=receptacle,
        interface=interfaces.get(receptacle),
        port_id=text_of(bus, "domain_uuid_key"),
        generation=_generation(gbps, is_idle),
        link_gbps=None if is_idle else gbps,
        peer_port_id=text_of(peer, "domain_uuid_key"),
        peer_model=text_of(peer, "device_name_key"),
        peer_has_rdma=_has_rdma(peer),
        via=via,
        devices=tuple(_name(item) for item, _ in plugged if not _is_computer(item)),
    )


def _plugged(bus: Item) -> Iterator[tuple[Item, tuple[str, ...]]]:
    """All that hangs on a bus, nearest first, each with the names of what lies between."""
    waiting: list[tuple[Any, tuple[str, ...]]] = [(bus.get("_items"), ())]
    while waiting:
        items, above = waiting.pop(0)
        for item in objects(items):
            yield item, above
            waiting.append((item.get("_items"), (*above, _name(item))))


def _is_computer(item: Item) -> bool:
    return text_of(item, "domain_uuid_key") is not None or bool(objects(item.get("services_title")))


def _has_rdma(peer: Item) -> bool:
    services = objects(peer.get("services_title"))
    return any(service.get("protocol_id_key") == _RDMA_PROTOCOL for service in services)


def _name(item: Item) -> str:
    return text_of(item, "device_name_key") or text_of(item, "_name") or "unnamed device"


def _gbps(speed: str) -> int | None:
    found = _SPEED.search(speed)
    return int(found[1]) if found else None


def _generation(gbps: int | None, is_idle: bool) -> int | None:
    if gbps is None:
        return None
    if gbps >= _GENERATION_5_GBPS:
        return 5
    # A slower link may be an old cable in a new port.
    return 4 if is_idle else None
