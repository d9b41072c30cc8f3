"""A rack that is only planned for: nodes that answer what a preparation asks of them."""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any

from tbcluster.checkpoint import Span
from tbcluster.cluster.order import Order
from tbcluster.cluster.preparation import Preparation
from tbcluster.cluster.prepared import Prepared
from tbcluster.cluster.rack.fetching import FetchStatus
from tbcluster.errors import ClusterClosedError
from tbcluster.machine import (
    Compute,
    LinkView,
    Machine,
    NodeState,
    NodeView,
    PathMeasurement,
    RackView,
)
from tbcluster.machine import Path as NetworkPath
from tbcluster.planner.nodes import NodeSpeed
from tbcluster.planner.plan import Plan

GIB = 1 << 30
SPEED = NodeSpeed(((1, 1e-10),), 1e-4, 1e-4, 1e-10)
PATH = PathMeasurement(NetworkPath("en0", "192.0.2.1", "en0"), 100.0, 8.0, 8.0, 0.0)
NAMES = ("head", "mini2", "mini3")
LINKS = tuple(LinkView(one, other, (PATH,)) for one, other in permutations(NAMES, 2))


def node(name: str, memory_bytes: int = 4 * GIB) -> NodeView:
    compute = Compute("CPU", "a device", memory_bytes, None, "1", "1")
    machine = Machine(name, "macOS", "arm64", "0", "3.11", compute=compute)
    return NodeView(name, name, NodeState.ONLINE, is_head=name == "head", machine=machine)


class RackDouble:
    """Two nodes that are there, with what they were asked for.

    Attributes:
        nodes: Those that are there; a test may change them.
        awaited: Who was waited for, if anyone was.
        needs: What nodes were to fetch at last; `num_fetches` times they were asked.
        num_measured: How often speeds were asked for that may have to be measured.
    """

    def __init__(self, *nodes: NodeView) -> None:
        self.nodes = nodes or (node("head"), node("mini2"))
        self.awaited: Sequence[str] | None = None
        self.needs: Mapping[str, Sequence[Span]] = {}
        self.num_fetches = 0
        self.num_measured = 0

    def usable(self) -> tuple[NodeView, ...]:
        return tuple(self.nodes)

    def known_speeds(self, kind: str) -> dict[str, NodeSpeed]:
        return {one.node_id: SPEED for one in self.nodes}

    def await_nodes(
        self, wanted: Sequence[str], gives_up: Callable[[], bool], on_wait: Callable[[str], None]
    ) -> list[NodeView]:
        self.awaited = wanted
        on_wait("waiting for mini2")
        if gives_up():
            raise ClusterClosedError("nobody waits")
        return list(self.nodes)

    def speeds(self, kind: str, gives_up: Callable[[], bool]) -> dict[str, NodeSpeed]:
        self.num_measured += 1
        return {one.node_id: SPEED for one in self.nodes}

    def view(self) -> RackView:
        return RackView("c", "rack", "0", self.nodes, LINKS)

    def fetch(
        self,
        source: Any,
        needs: Mapping[str, Sequence[Span]],
        on_progress: Callable[[Sequence[FetchStatus]], None],
        gives_up: Callable[[], bool],
    ) -> dict[str, str]:
        self.needs = needs
        self.num_fetches += 1
        on_progress([FetchStatus(name, 2, 5) for name in needs])
        return {name: f"/on/{name}" for name in needs}


class Bench:
    """A preparation, and what it told."""

    def __init__(self, order: Order, rack: RackDouble | None = None) -> None:
        self.plans: list[Plan] = []
        self.notes: list[str] = []
        self.said: list[str] = []
        self.is_over = False
        self.preparation = Preparation(
            order,
            rack,  # type: ignore[arg-type]
            lambda: self.is_over,
            on_plan=self.plans.append,
            on_fetch=lambda _: self.said.append(self.preparation.doing),
            on_note=self.notes.append,
        )

    def run(self) -> Prepared:
        return self.preparation.run()
