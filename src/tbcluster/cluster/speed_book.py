"""What was measured of the nodes' speeds, kept from one run to the next."""

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from tbcluster.cluster.trust.folder import TrustFolder
from tbcluster.errors import TrustError
from tbcluster.hardware.private_file import PrivateFile
from tbcluster.machine import Machine, NodeView
from tbcluster.planner.nodes import NodeSpeed
from tbcluster.wire.errands import MeasuredSpeed

logger = logging.getLogger(__name__)

NAME = "speeds.json"


class SavedSpeed(msgspec.Struct, frozen=True):
    """A node's speed, as long as it is the `machine` that it was.

    Attributes:
        machine: All that its speed depends on, see `described`.
        measured_at: Unix time, seconds.
    """

    node_id: str
    machine: str
    measured_at: float
    speed: MeasuredSpeed


class SpeedBook:
    """The file of speeds in a folder. A file that cannot be used holds none: they are measured
    anew. Any thread, any number of processes."""

    def __init__(self, folder: Path) -> None:
        self._file = PrivateFile(folder / NAME, TrustError)

    def find(self, nodes: Iterable[NodeView], kind: str) -> dict[str, NodeSpeed]:
        """What is known of these nodes' speed with weights of this kind, by node id."""
        saved = {
            (entry.node_id, entry.machine): entry.speed
            for entry in self._load()
            if entry.speed.kind == kind
        }
        found = {
            node.node_id: saved.get((node.node_id, described(node.machine)))
            for node in nodes
            if node.machine is not None
        }
        return {node_id: node_speed(speed) for node_id, speed in found.items() if speed}

    def record(self, node_id: str, machine: Machine, speeds: Sequence[MeasuredSpeed]) -> None:
        """Keep what was measured; of the same kind, in place of what was known."""
        now, what = time.time(), described(machine)
        new = [SavedSpeed(node_id, what, now, speed) for speed in speeds]
        replaced = {_key(entry) for entry in new}
        try:
            with self._file.locked():
                kept = [entry for entry in self._load() if _key(entry) not in replaced]
                self._file.replace(msgspec.json.format(msgspec.json.encode([*kept, *new])))
        except TrustError as error:
            # A full disk ends no coordinator.
            logger.warning("%s: speeds will be measured anew the next time", error)

    def _load(self) -> list[SavedSpeed]:
        try:
            content = self._file.read()
            return msgspec.json.decode(content, type=list[SavedSpeed]) if content else []
        except (TrustError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            logger.warning("%s: the nodes' speeds are measured anew: %s", self._file.path, error)
            return []


def known_speeds(folder: TrustFolder, nodes: Iterable[NodeView], kind: str) -> dict[str, NodeSpeed]:
    """What is known without measuring, by node id: for whoever plans while a coordinator runs."""
    return SpeedBook(folder.path).find(nodes, kind)


def described(machine: Machine) -> str:
    """What the speed of a machine depends on: another device, version of MLX or limit asks for a
    new measurement."""
    compute = machine.compute
    device = f"{compute.backend}, {compute.device}" if compute is not None else "unknown"
    version = compute.mlx_version if compute is not None else "unknown"
    limit = f"{machine.cpu_limit:g}" if machine.cpu_limit is not None else "all"
    return f"{device}; mlx {version}; {limit} of {machine.num_cores} cores"


def _key(entry: SavedSpeed) -> tuple[str, str]:
    """A node that has changed is forgotten as it was: it seldom changes back."""
    return entry.node_id, entry.speed.kind


def node_speed(speed: MeasuredSpeed) -> NodeSpeed:
    return NodeSpeed(speed.rates, speed.layer_s, speed.stage_s, speed.cache_s_per_byte)
