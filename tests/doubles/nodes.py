"""Nodes as a coordinator meets them: members of a cluster, and what they say of themselves."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from tbcluster.cluster.trust import Member, id_of
from tbcluster.core import StageRange
from tbcluster.machine import Address, Interface, InterfaceKind, Path, PathMeasurement
from tbcluster.wire.control import StageSpec
from tbcluster.wire.rack import RACK_PROTOCOL, Hello
from tests.doubles.racks import MAC

VERSION = version("tbcluster")


def key_of(name: str) -> str:
    """A text that has the form of a public key."""
    return name.ljust(40, "0")


def member(name: str, **facts: Any) -> Member:
    """A member of the cluster whose public key follows from its name, if none is given."""
    key = facts.pop("public_key", key_of(name))
    return Member(id_of(key), name, key, "2026-11-01T12:00:00Z", **facts)


def interface(name: str, ip: str) -> Interface:
    """An Ethernet interface that is up."""
    return Interface(name, InterfaceKind.ETHERNET, True, 1500, (Address(ip, 24),))


def hello(
    incarnation: str = "first", *, interfaces: Sequence[Interface] | None = None, **changes: Any
) -> Hello:
    """What an agent of this version says first."""
    machine = MAC if interfaces is None else replace(MAC, interfaces=tuple(interfaces))
    facts: dict[str, Any] = {
        "protocol": RACK_PROTOCOL,
        "tbcluster_version": VERSION,
        "incarnation": incarnation,
        "machine": machine,
        "probe_port": 4711,
        "run_dir": "/tmp/tbcluster-agent",
        "user_id": 501,
        **changes,
    }
    return Hello(**facts)


def stage_spec(index: int = 0, num_stages: int = 2) -> StageSpec:
    """What a coordinator says of a stage, but for its place."""
    return StageSpec(index, num_stages, "/model", StageRange(index, index + 1), 1, "", "")


def measurement(
    address: str, measured_at: float = 1.8e9, interface: str = "en0"
) -> PathMeasurement:
    """One path that was measured."""
    return PathMeasurement(Path(interface, address, "en0"), 300.0, 4.0, 8.0, measured_at)
