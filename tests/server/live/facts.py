"""Facts of made-up racks."""

from dataclasses import replace

from tbcluster.cluster.stage_status import StageState, StageStatus
from tbcluster.cluster.status import ClusterState, ClusterStatus
from tbcluster.core import StageRange
from tbcluster.engine.statistics import EngineStatistics, StageStatistics
from tbcluster.machine import (
    Gauges,
    Interface,
    InterfaceKind,
    LinkView,
    Machine,
    NodeState,
    NodeView,
    Path,
    PathMeasurement,
    RackView,
)
from tbcluster.server.live.facts import Facts, ModelFacts

NAMES = ("head", "two", "three")
MACHINE = Machine(
    "mini",
    "macOS 26.3",
    "arm64",
    "0.1.0",
    "3.13",
    chip="Apple M4 Pro",
    memory_bytes=64 << 30,
    interfaces=(
        Interface("en3", InterfaceKind.THUNDERBOLT, is_up=True, mtu=1500),
        Interface("en0", InterfaceKind.ETHERNET, is_up=True, mtu=1500),
    ),
)


def node(name: str, **changes: object) -> NodeView:
    """One that is there."""
    made = NodeView(
        f"id-{name}",
        name,
        NodeState.ONLINE,
        is_head=name == "head",
        machine=MACHINE,
        gauges=Gauges(1.0, available_bytes=5 << 30, cpu_load=0.25, temperature_c=51.0),
    )
    return replace(made, **changes)


def way(gbps: float, interface: str = "en3") -> PathMeasurement:
    """A path that was measured; its address is the interface's name."""
    return PathMeasurement(Path(interface, interface, interface), 45.0, 1.0, gbps, 1.0)


def link(source: str, target: str, *paths: PathMeasurement, dead: tuple[str, ...] = ()) -> LinkView:
    """From one node to another, best path first."""
    return LinkView(f"id-{source}", f"id-{target}", paths, dead)


def rack(
    nodes: tuple[NodeView, ...] = tuple(map(node, NAMES)), links: tuple[LinkView, ...] = ()
) -> RackView:
    """One that belongs to nobody."""
    return RackView("id", "minis", "0.1.0", nodes, links)


def stage(index: int, name: str, **changes: object) -> StageStatus:
    """Four layers on a node."""
    made = StageStatus(index, StageRange(4 * index, 4 * index + 4), StageState.READY, name)
    return replace(made, **changes)


def statistics(num_stages: int = 3, **changes: object) -> EngineStatistics:
    """Of an engine that has done nothing."""
    made = EngineStatistics(
        stages=(StageStatistics(0, 0),) * num_stages,
        num_steps=0,
        own_us=0,
        round_trip_us=0,
        wire_us=0,
        num_prompt_tokens=0,
        num_cached_tokens=0,
        num_generated_tokens=0,
        num_preemptions=0,
        num_prefixes=0,
        kv_used_bytes=(100,) * num_stages,
        kv_budget_bytes=(1000,) * num_stages,
    )
    return replace(made, **changes)


def status(
    stages: tuple[StageStatus, ...] = tuple(stage(index, name) for index, name in enumerate(NAMES)),
    **changes: object,
) -> ClusterStatus:
    """A model that is ready, a stage on each node."""
    return replace(ClusterStatus(ClusterState.READY, "toy", stages, 0, None), **changes)


def facts(now: float = 10.0, model: ModelFacts | None = None, **changes: object) -> Facts:
    """Of a rack with one model."""
    made = Facts(
        at=1000.0 + now,
        now=now,
        version="0.1.0",
        state="ok",
        models={"toy": model or ModelFacts(status(), statistics())},
        rack=rack(),
    )
    return replace(made, **changes)
