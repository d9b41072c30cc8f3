"""What precedes loading: a model is opened, planned, shown and fetched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tbcluster.checkpoint import Span, merged
from tbcluster.cluster.chip_speeds import assumed_speed
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import Layout
from tbcluster.cluster.opening import (
    THIS_MACHINE,
    OpenedModel,
    open_model,
    plan_here,
    plan_model,
)
from tbcluster.cluster.own_speed import speed_here
from tbcluster.cluster.plan_rack import one_machine, plan_rack
from tbcluster.cluster.served_model import ServedModel, served_models
from tbcluster.core import StageRange
from tbcluster.errors import PlanError, StageError
from tbcluster.model.device import memory_limit_bytes
from tbcluster.model.spans import spans_of
from tbcluster.planner.nodes import NodeSpeed, PlanRack
from tbcluster.planner.partition import check_ranges
from tbcluster.planner.plan import Plan, Wishes

if TYPE_CHECKING:
    # One machine alone needs none of it, and it takes its time to import.
    from tbcluster.cluster.rack.fetching import FetchStatus
    from tbcluster.cluster.rack.rack import Rack

OnPlan = Callable[[Plan], None]
OnFetch = Callable[[Sequence["FetchStatus"]], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be served, and how.

    Attributes:
        source: A folder, a Hugging Face id, or None for the bundled model.
        name: What clients call it; None for what its source is called.
        by_hand: Who runs what, where a person says so.
        taken_bytes: What other models hold, by node.
        memory_bytes: The most that models may take on this machine; None for what MLX says.
        measures_speed, shortens_context: See `Cluster`.
    """

    source: str | Path | None = None
    name: str | None = None
    kv: KvOptions = field(default_factory=KvOptions)
    wishes: Wishes = field(default_factory=Wishes)
    by_hand: Layout = ()
    taken_bytes: Mapping[str, int] = field(default_factory=dict)
    memory_bytes: int | None = None
    measures_speed: bool = False
    shortens_context: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model that can be loaded.

    Attributes:
        rack: What was known of the nodes when it was planned.
        replicas: The model, placed and budgeted, once for each replica of the plan.
        folders: What each node of a rack loads from.
    """

    opened: OpenedModel
    rack: PlanRack
    plan: Plan
    replicas: tuple[ServedModel, ...]
    folders: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_folder(self) -> Path | None:
        """Where all of the weights are on this machine: in the model's own folder, or in what was
        fetched to the head node; None if they are not."""
        opened = self.opened
        if opened.weights is None or opened.weights.is_whole:
            return opened.folder.path
        head = next(node.name for node in self.rack.nodes if node.is_head)
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
        head = next(node for node in self.rack.nodes if node.is_head)
        stages = (stage for replica in self.plan.replicas for stage in replica.stages)
        beside = sum(stage.weight_bytes for stage in stages if stage.node == head.name)
        if beside + self.opened.profile.weight_bytes > head.memory_bytes:
            own = " beside its stages" if beside else ""
            return f"{head.name} has no memory for all of it{own}"
        return None


class Preparation:
    """Prepares a model for loading, once.

    Args:
        rack: The nodes; None for this machine alone.
        gives_up: Asked now and then whether to stop.

    Attributes:
        doing: With what it is busy now, in words.
        plan: Once there is one.
        fetches: How far each node is, while weights are fetched.
    """

    def __init__(
        self,
        order: Order,
        rack: "Rack | None",
        gives_up: Callable[[], bool],
        *,
        on_plan: OnPlan,
        on_fetch: OnFetch,
        on_note: OnNote,
    ) -> None:
        self.doing = "opening the model"
        self.plan: Plan | None = None
        self.fetches: tuple[FetchStatus, ...] = ()
        self._order = order
        self._rack = rack
        self._gives_up = gives_up
        self._on_plan = on_plan
        self._on_fetch = on_fetch
        self._on_note = on_note

    def run(self) -> Prepared:
        """See `Cluster` for what it raises."""
        order, rack = self._order, self._rack
        if rack is not None and order.kv.prefix_folder is not None:
            raise PlanError(
                f"prefixes in {order.kv.prefix_folder}: on a rack they are kept in memory alone; "
                "leave out --prefix-folder, or serve on this machine with --local"
            )
        opened = open_model(
            order.source, order.kv.bits, name=order.name, is_on_rack=rack is not None
        )
        for note in opened.notes:
            self._on_note(note)
        for stages in order.by_hand:
            # Nobody has to wait for nodes to hear that a layer is missing.
            ranges = [layers for _, layers in stages]
            check_ranges(ranges, len(opened.profile.layers), opened.profile.legal_cuts)
        kv = order.kv
        wishes = replace(order.wishes, kv_memory_bytes=kv.memory_bytes, kv_bits=kv.bits)
        if order.shortens_context:
            wishes = self._shortened(wishes, opened)
        nodes = self._nodes(opened)
        make = plan_here if rack is None else plan_model
        self.plan = make(opened, nodes, wishes, order.by_hand)
        self._on_plan(self.plan)
        folders = None if rack is None else self._fetch(opened, self.plan, rack)
        replicas = served_models(opened, self.plan, kv, folders)
        return Prepared(opened, nodes, self.plan, replicas, folders or {})

    def _shortened(self, wishes: Wishes, opened: OpenedModel) -> Wishes:
        """A context that was wished for other models, too, is no longer than this one's own."""
        most = opened.profile.context_length
        if not wishes.context or not most or wishes.context <= most:
            return wishes
        self._on_note(
            f"{opened.name} was made for {most:,} tokens of context: it is planned with these, not "
            f"with {wishes.context:,}"
        )
        return replace(wishes, context=most)

    def _nodes(self, opened: OpenedModel) -> PlanRack:
        """The nodes that the model may be placed on."""
        order, kind = self._order, opened.profile.weight_kind
        if self._rack is None:
            taken = order.taken_bytes.get(THIS_MACHINE, 0)
            speed = self._speed_here(opened, is_busy=taken > 0) if order.measures_speed else None
            return rack_here(opened, order.memory_bytes, taken, speed)
        self.doing = "waiting for the nodes"
        wanted = sorted({node for stages in order.by_hand for node, _ in stages})
        there = self._rack.await_nodes(wanted, self._gives_up, self._note_doing)
        self.doing = "measuring the nodes"
        speeds = self._rack.speeds(opened.profile.speed_kind, self._gives_up)
        return plan_rack(there, self._rack.view().links, speeds, kind, order.taken_bytes)

    def _speed_here(self, opened: OpenedModel, *, is_busy: bool) -> NodeSpeed | None:
        self.doing = "measuring this machine"
        return speed_here(opened.profile.speed_kind, self._gives_up, is_busy=is_busy)

    def _note_doing(self, what: str) -> None:
        self.doing = what

    def _fetch(self, opened: OpenedModel, plan: Plan, rack: "Rack") -> Mapping[str, str]:
        """The folder on each node that its stages load from."""
        if opened.weights is None:
            # An agent knows where its bundled model is.
            return {stage.node: "" for replica in plan.replicas for stage in replica.stages}
        needs = spans_by_node(opened, plan)
        self.doing = "fetching the weights"
        folders = rack.fetch(opened.weights, needs, self._note_fetches, self._gives_up)
        self.fetches = ()
        self.doing = "planning the memory"
        return folders

    def _note_fetches(self, fetches: Sequence["FetchStatus"]) -> None:
        self.fetches = tuple(fetches)
        self.doing = fetching(self.fetches)
        self._on_fetch(fetches)


def spans_by_node(opened: OpenedModel, plan: Plan) -> dict[str, tuple[Span, ...]]:
    """What of the model's files each node of the plan needs on its disk."""
    needs: dict[str, list[Span]] = {}
    for replica in plan.replicas:
        spans = spans_of(opened.inspected, [stage.layers for stage in replica.stages])
        for stage, own in zip(replica.stages, spans, strict=True):
            needs.setdefault(stage.node, []).extend(own)
    return {node: merged(spans) for node, spans in needs.items()}


def rack_here(
    opened: OpenedModel,
    most_bytes: int | None = None,
    taken_bytes: int = 0,
    speed: NodeSpeed | None = None,
) -> PlanRack:
    """This machine alone, as the planner sees it.

    Args:
        most_bytes: What models may take here; None for what the system says.
        taken_bytes: What other models hold.
        speed: As it was measured; None for an assumed one.
    """
    left = _memory_here(most_bytes) - taken_bytes
    speed = speed or assumed_speed(opened.profile.weight_kind, opened.device.backend)
    return one_machine(max(0, left), speed, THIS_MACHINE)


def _memory_here(most: int | None) -> int:
    """Bytes that models may take on this machine, `most` at most."""
    try:
        known = memory_limit_bytes()
    except StageError:
        if most is None:
            raise
        return most
    return known if most is None else min(known, most)


def fetching(fetches: Sequence["FetchStatus"]) -> str:
    """How far the nodes are that still fetch, in words."""
    left = [_share(one) for one in fetches if not one.is_done]
    return f"fetching: {', '.join(left)}" if left else "fetching the weights"


def _share(fetch: "FetchStatus") -> str:
    share = f"{fetch.node} {100 * fetch.done_bytes // max(1, fetch.total_bytes)} %"
    return f"{share} checked" if fetch.is_checking else share
