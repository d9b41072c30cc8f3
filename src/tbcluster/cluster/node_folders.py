"""Where the nodes of a rack have the weights of a model, and how they come there."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tbcluster.checkpoint import Span, merged
from tbcluster.cluster.opening import OpenedModel
from tbcluster.cluster.prepared import spans_by_node
from tbcluster.planner.plan import Plan

if TYPE_CHECKING:
    from tbcluster.cluster.rack.fetching import FetchStatus
    from tbcluster.cluster.rack.rack import Rack


class NodeFolders:
    """The folders of one model.

    Attributes:
        known: By node, what its stages load from.
    """

    def __init__(self, opened: OpenedModel, rack: "Rack") -> None:
        self.known: dict[str, str] = {}
        self._opened = opened
        self._rack = rack
        self._held: dict[str, tuple[Span, ...]] = {}

    def restore(self, plan: Plan, folders: Mapping[str, str]) -> None:
        """A coordinator before this one had had the nodes of this plan fetch what they need."""
        self._note(spans_by_node(self._opened, plan), folders)

    def fetch(
        self,
        plan: Plan,
        on_progress: Callable[[Sequence["FetchStatus"]], None],
        gives_up: Callable[[], bool],
    ) -> dict[str, str]:
        """Have the nodes of a plan fetch what they are not known to have; gives the folder of each.

        Raises:
            FetchError, RackError, ClusterClosedError: See `Rack.fetch`.
        """
        opened = self._opened
        nodes = {stage.node for replica in plan.replicas for stage in replica.stages}
        if opened.weights is None:
            # An agent knows where its bundled model is.
            return dict.fromkeys(nodes, "")
        needs = {
            node: spans
            for node, spans in spans_by_node(opened, plan).items()
            if not self._has(node, spans)
        }
        if needs:
            found = self._rack.fetch(opened.weights, needs, on_progress, gives_up)
            self._note(needs, found)
        return {node: self.known[node] for node in nodes}

    def _has(self, node: str, spans: Sequence[Span]) -> bool:
        held = self._held.get(node, ())
        return bool(held) and merged([*held, *spans]) == held

    def _note(self, held: Mapping[str, Sequence[Span]], folders: Mapping[str, str]) -> None:
        self.known.update(folders)
        for node, spans in held.items():
            self._held[node] = merged([*self._held.get(node, ()), *spans])
