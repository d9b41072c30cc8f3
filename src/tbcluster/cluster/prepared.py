"""A model that can be loaded: opened, planned, and its weights where they are needed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tbcluster.checkpoint import Span, merged
from tbcluster.cluster.opening import OpenedModel
from tbcluster.cluster.served_model import ServedModel
from tbcluster.core import StageRange
from tbcluster.model.spans import spans_of
from tbcluster.planner.nodes import PlanRack
from tbcluster.planner.plan import Plan
from tbcluster.wire.control import Reference


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that can be loaded.

    Attributes:
        rack: What was known of the nodes when it was planned.
        replicas: The model, placed and budgeted, once for each replica of the plan.
        folders: What each node of a rack loads from.
        reference: What the unsharded model says to the parity probe, where that is known.
    """

    opened: OpenedModel
    rack: PlanRack
    plan: Plan
    replicas: tuple[ServedModel, ...]
    folders: Mapping[str, str] = field(default_factory=dict)
    reference: Reference | None = None

    @property
    def whole_folder(self) -> Path | None:
        """Where all of the weights are on this machine: in the model's own folder, or in what was
        fetched to the head node; None if they are not."""
        opened = self.opened
        if opened.weights is None or opened.weights.is_whole:
            return opened.folder.path
        head = next((node.name for node in self.rack.nodes if node.is_head), "")
        fetched = spans_by_node(opened, self.plan).get(head, ())
        whole = spans_of(opened.inspected, [StageRange(0, len(opened.profile.layers))])[0]
        return Path(self.folders[head]) if merged([*fetched, *whole]) == fetched else None

    @property
    def no_reference_because(self) -> str | None:
        """Why the unsharded model cannot be run to compare with; None where it can."""
        if self.replicas[0].nodes is None:
            return None  # all of it is here, and has room here
        if self.whole_folder is None:
            return "the head node has not all of the weights"
        head = next((node for node in self.rack.nodes if node.is_head), None)
        if head is None:
            return "the head node runs no models"
        stages = (stage for replica in self.plan.replicas for stage in replica.stages)
        beside = sum(stage.weight_bytes for stage in stages if stage.node == head.name)
        if beside + self.opened.profile.weight_bytes > head.memory_bytes:
            own = " beside its stages" if beside else ""
            return f"{head.name} has no memory for all of it{own}"
        return None


def spans_by_node(opened: OpenedModel, plan: Plan) -> dict[str, tuple[Span, ...]]:
    """What of the model's files each node of the plan needs on its disk."""
    needs: dict[str, list[Span]] = {}
    for replica in plan.replicas:
        spans = spans_of(opened.inspected, [stage.layers for stage in replica.stages])
        for stage, own in zip(replica.stages, spans, strict=True):
            needs.setdefault(stage.node, []).extend(own)
    return {node: merged(spans) for node, spans in needs.items()}
