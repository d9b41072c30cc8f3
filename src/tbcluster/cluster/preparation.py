"""What precedes loading: a model is opened, planned, shown and fetched."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tbcluster.cluster.kept_shards import keep_shards
from tbcluster.cluster.node_folders import NodeFolders
from tbcluster.cluster.opening import (
    THIS_MACHINE,
    OpenedModel,
    open_model,
    plan_here,
    plan_model,
)
from tbcluster.cluster.order import Order
from tbcluster.cluster.own_speed import speed_here
from tbcluster.cluster.plan_rack import plan_rack
from tbcluster.cluster.prepared import Prepared
from tbcluster.cluster.rack_here import rack_here
from tbcluster.cluster.replanning import Placed, fits, memory_taken, plan_one, with_kv_memory
from tbcluster.cluster.saved_preparation import SavedPreparation, saved_order
from tbcluster.cluster.served_model import ServedModel, served_models
from tbcluster.cluster.status import fetching
from tbcluster.cluster.usable_nodes import await_usable
from tbcluster.errors import PlanError
from tbcluster.machine import NodeState, NodeView
from tbcluster.planner.nodes import NodeSpeed, PlanRack
from tbcluster.planner.partition import check_ranges
from tbcluster.planner.plan import Plan, PlannedReplica, Wishes
from tbcluster.wire.control import Reference

if TYPE_CHECKING:
    # One machine alone needs none of it, and it takes its time to import.
    from tbcluster.cluster.rack.fetching import FetchStatus
    from tbcluster.cluster.rack.rack import Rack

OnPlan = Callable[[Plan], None]
OnFetch = Callable[[Sequence["FetchStatus"]], None]
OnNote = Callable[[str], None]


class Preparation:
    """Prepares a model for loading, and on a rack again whenever nodes come and go.

    Args:
        rack: The nodes; None for this machine alone.
        gives_up: Asked now and then whether to stop.

    Attributes:
        doing: With what it is busy now, in words.
        plan: Once there is one; what `settle` was told is in it.
        seen: Names of the nodes that it was planned for at first.
        fetches: How far each node is, while weights are fetched.
        is_restored: Whether it is as a coordinator before this one had prepared it.
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
        self.seen: frozenset[str] = frozenset()
        self.fetches: tuple[FetchStatus, ...] = ()
        self.is_restored = False
        self._order = order
        self._rack = rack
        self._gives_up = gives_up
        self._on_plan = on_plan
        self._on_fetch = on_fetch
        self._on_note = on_note
        self._opened: OpenedModel | None = None
        self._folders: NodeFolders | None = None
        # Each replica in force, and what was prepared to come after it.
        self._placed: list[Placed] = []
        self._next: dict[int, tuple[Plan, Placed]] = {}
        # Each replica has a thread that plans for it. How many were placed anew, now and when each
        # was planned.
        self._settle_lock = threading.Lock()
        self._num_settled = 0
        self._planned_at: dict[int, int] = {}

    def run(self) -> Prepared:
        """See `Cluster` for what it raises."""
        order, rack = self._order, self._rack
        if rack is not None and order.kv.prefix_folder is not None:
            raise PlanError(
                f"prefixes in {order.kv.prefix_folder}: on a rack they are kept in memory alone; "
                "leave out --prefix-folder, or serve on this machine with --local"
            )
        saved = order.saved if rack is not None else None
        opened = self._opened = open_model(
            order.source,
            order.kv.bits,
            name=order.name,
            is_on_rack=rack is not None,
            revision=saved.revision if saved is not None else "",
        )
        for note in opened.notes:
            self._on_note(note)
        for stages in order.by_hand:
            # Nobody has to wait for nodes to hear that a layer is missing.
            ranges = [layers for _, layers in stages]
            check_ranges(ranges, len(opened.profile.layers), opened.profile.legal_cuts)
        if rack is None:
            nodes = self._nodes_here(opened)
            plan = plan_here(opened, nodes, self._wishes(opened), order.by_hand)
            return self._place(opened, nodes, plan, None)
        folders = self._folders = NodeFolders(opened, rack)
        if saved is None or saved.identity != opened.identity:
            return self._planned(opened, rack, None)
        reference = saved.reference if saved.order.kv_bits == order.kv.bits else None
        if saved.order != saved_order(order):
            return self._planned(opened, rack, reference)
        return self._restored(opened, rack, saved, folders) or self._planned(
            opened, rack, reference
        )

    # Again, on a rack

    def plan_again(self, number: int, usable: Sequence[NodeView]) -> Plan:
        """A plan for one replica alone, beside the others, on a rack whose nodes have come and
        gone. Nothing is asked of a node, nothing is measured.

        Args:
            number: Of the replica.
            usable: The nodes that may be given stages.

        Raises:
            DoesNotFitError: There is too little memory; it says how much.
            PlanError: There is no node, no rack, or no plan yet.
        """
        order = self._order
        # First: what is settled meanwhile was perhaps not seen.
        self._planned_at[number] = self._num_settled
        taken = order.taken_now() if order.taken_now is not None else order.taken_bytes
        others = [with_kv_memory(one) for one in self._placed if one.model.replica != number]
        plan = self._plan_one(number, others, usable, taken)
        if plan.is_by_hand:
            return plan
        opened, rack, _ = self._on_rack()
        nodes = self._known(opened, rack, usable, memory_taken(others, taken))
        promised = replace(
            self._wishes(opened), context=plan.context, streams=plan.streams, stages=None
        )
        return keep_shards(
            plan,
            self._placed[number].planned,
            [node.name for node in usable],
            lambda stages: plan_model(opened, nodes, promised, (stages,)),
        )

    def prepare_again(
        self, number: int, plan: Plan, gives_up: Callable[[], bool] = lambda: False
    ) -> ServedModel:
        """Have the nodes of such a plan fetch what they lack; gives the replica as it will be
        placed once `settle` is called.

        Raises:
            FetchError: A node cannot fetch it.
            ClusterClosedError: It was given up.
            TbclusterError: See `served_models`.
        """
        opened, _, folders = self._on_rack()
        known = folders.fetch(plan, self._note_fetches, lambda: gives_up() or self._gives_up())
        self.fetches = ()
        before = self._placed[number].model
        (model,) = served_models(opened, plan, self._order.kv, known, before)
        self._next[number] = plan, Placed(plan.replicas[0], model)
        return model

    def settle(self, number: int) -> None:
        """The stages of a replica are now those that were prepared for it last.

        Raises:
            PlanError: Another replica was placed anew since these were planned: both may count
                with the same memory.
        """
        with self._settle_lock:
            if self._planned_at[number] != self._num_settled:
                raise PlanError("another replica was placed anew meanwhile")
            self._num_settled += 1
            self._put_in_force(*self._next.pop(number))

    def _put_in_force(self, plan: Plan, placed: Placed) -> None:
        self._placed[placed.model.replica] = placed
        replicas = tuple(placed.planned for placed in self._placed)
        if len(replicas) > 1 and self.plan is not None:
            streams = sum(replica.streams for replica in replicas)
            context = min(self.plan.context, plan.context)
            plan = replace(self.plan, replicas=replicas, streams=streams, context=context)
        self.plan = plan

    def taken_bytes(self) -> dict[str, int]:
        """What all replicas take, by node. KV caches count in full, as large as they may become:
        what was given away is not there for another model."""
        return memory_taken(map(with_kv_memory, self._placed), {})

    def taken_without(
        self, node: str, usable: Sequence[NodeView], taken: Mapping[str, int]
    ) -> dict[str, int]:
        """Bytes by node that all replicas would take if this node were left out, with all that was
        promised.

        Args:
            usable: The nodes that may be given stages.
            taken: What other models would hold.

        Raises:
            DoesNotFitError: There would be too little memory; it says how much.
        """
        replicas = [placed.planned for placed in self._placed]
        left = [one for one in usable if one.name != node]
        for number, replica in enumerate(replicas):
            if any(stage.node == node for stage in replica.stages):
                others = [*replicas[:number], *replicas[number + 1 :]]
                plan = self._plan_one(number, others, left, taken, keeps_promise=True)
                replicas[number] = plan.replicas[0]
        return memory_taken(replicas, {})

    def to_save(self, reference: Reference | None) -> SavedPreparation | None:
        """What another coordinator needs to serve the same at once; None where there is no rack."""
        opened, plan, folders = self._opened, self.plan, self._folders
        if opened is None or plan is None or folders is None:
            return None
        nodes = {stage.node for replica in plan.replicas for stage in replica.stages}
        return SavedPreparation(
            order=saved_order(self._order),
            identity=opened.identity,
            revision=opened.revision,
            plan=plan,
            folders={node: folders.known.get(node, "") for node in sorted(nodes)},
            reference=reference,
        )

    # How

    def _planned(self, opened: OpenedModel, rack: "Rack", reference: Reference | None) -> Prepared:
        """Planned for all nodes, or for those that are named, once they are there."""
        order = self._order
        self.doing = "waiting for the nodes"
        wanted = sorted({node for stages in order.by_hand for node, _ in stages})
        there = rack.await_nodes(wanted, self._gives_up, self._note_doing)
        nodes = self._measured(opened, rack, there)
        plan = plan_model(opened, nodes, self._wishes(opened), order.by_hand)
        return self._place(opened, nodes, plan, reference)

    def _restored(
        self, opened: OpenedModel, rack: "Rack", saved: SavedPreparation, folders: NodeFolders
    ) -> Prepared | None:
        """As it was; if a node does not come back, planned for the others; None if there is not
        enough of them."""
        self.doing = "waiting for the nodes of the saved plan"
        there = await_usable(rack, saved.nodes, self._gives_up)
        gone = sorted(saved.nodes - {node.name for node in there})
        if gone:
            return self._planned_without(opened, rack, gone, there, saved.reference)
        nodes = self._known(opened, rack, there, self._order.taken_bytes)
        if not fits(saved.plan, nodes):
            return None
        self.is_restored = True
        self._on_note(f"{opened.name} is placed as it was")
        folders.restore(saved.plan, saved.folders)
        return self._place(opened, nodes, saved.plan, saved.reference)

    def _planned_without(
        self,
        opened: OpenedModel,
        rack: "Rack",
        gone: Sequence[str],
        there: Sequence[NodeView],
        reference: Reference | None,
    ) -> Prepared | None:
        names = ", ".join(gone)
        self._on_note(f"{names} did not come back: {opened.name} is planned for the other nodes")
        by_hand = self._order.by_hand
        if any(node in gone for stages in by_hand for node, _ in stages):
            self._on_note("layers were given to it by hand: they are placed anew without it")
            by_hand = ()
        nodes = self._measured(opened, rack, there)
        try:
            plan = plan_model(opened, nodes, self._wishes(opened), by_hand)
        except PlanError as error:
            self._on_note(f"{error}; waiting for {names}")
            return None
        return self._place(opened, nodes, plan, reference)

    def _place(
        self, opened: OpenedModel, nodes: PlanRack, plan: Plan, reference: Reference | None
    ) -> Prepared:
        """Shown, fetched and budgeted."""
        self.plan = plan
        self.seen = frozenset(node.name for node in nodes.nodes)
        self._on_plan(plan)
        known = None
        if self._folders is not None:
            self.doing = "fetching the weights"
            known = self._folders.fetch(plan, self._note_fetches, self._gives_up)
            self.fetches = ()
            self.doing = "planning the memory"
        replicas = served_models(opened, plan, self._order.kv, known)
        self._placed = [Placed(*one) for one in zip(plan.replicas, replicas, strict=True)]
        return Prepared(opened, nodes, plan, replicas, known or {}, reference)

    def _wishes(self, opened: OpenedModel) -> Wishes:
        """With what KV options wish for; a context that was wished for other models, too, is no
        longer than this one's own."""
        order, kv = self._order, self._order.kv
        wishes = replace(order.wishes, kv_memory_bytes=kv.memory_bytes, kv_bits=kv.bits)
        most = opened.profile.context_length
        if not order.shortens_context or not wishes.context or not most or wishes.context <= most:
            return wishes
        if self.plan is None:
            self._on_note(
                f"{opened.name} was made for {most:,} tokens of context: it is planned with these, "
                f"not with {wishes.context:,}"
            )
        return replace(wishes, context=most)

    def _nodes_here(self, opened: OpenedModel) -> PlanRack:
        order = self._order
        taken = order.taken_bytes.get(THIS_MACHINE, 0)
        speed = self._speed_here(opened, is_busy=taken > 0) if order.measures_speed else None
        return rack_here(opened, order.memory_bytes, taken, speed)

    def _measured(self, opened: OpenedModel, rack: "Rack", there: Sequence[NodeView]) -> PlanRack:
        """These nodes, with their speeds."""
        self.doing = "measuring the nodes"
        speeds = rack.speeds(opened.profile.speed_kind, self._gives_up)
        kind, links = opened.profile.weight_kind, rack.view().links
        return plan_rack(there, links, speeds, kind, self._order.taken_bytes)

    def _plan_one(
        self,
        number: int,
        others: Sequence[PlannedReplica],
        usable: Sequence[NodeView],
        taken: Mapping[str, int],
        *,
        keeps_promise: bool = False,
    ) -> Plan:
        opened, rack, _ = self._on_rack()
        wishes = self._wishes(opened)
        share = -(-wishes.streams // len(self._placed))
        return plan_one(
            opened,
            self._known(opened, rack, usable, memory_taken(others, taken)),
            replace(wishes, streams=max(share, self._placed[number].planned.streams)),
            self._order.by_hand[number : number + 1],
            keeps_promise=keeps_promise,
        )

    def _on_rack(self) -> "tuple[OpenedModel, Rack, NodeFolders]":
        opened, rack, folders = self._opened, self._rack, self._folders
        if opened is None or rack is None or folders is None or not self._placed:
            raise PlanError("only a model that was planned for a rack is planned again")
        return opened, rack, folders

    def _known(
        self,
        opened: OpenedModel,
        rack: "Rack",
        there: Sequence[NodeView],
        taken: Mapping[str, int],
    ) -> PlanRack:
        """The same without measuring. What would fit with nodes that are away is told, too."""
        view = rack.view()
        names = {node.name for node in there}
        away = [n for n in view.nodes if n.state is NodeState.OFFLINE and n.name not in names]
        speeds = rack.known_speeds(opened.profile.speed_kind)
        kind = opened.profile.weight_kind
        offline = plan_rack(away, (), speeds, kind, taken).nodes
        return replace(plan_rack(there, view.links, speeds, kind, taken), offline=offline)

    def _speed_here(self, opened: OpenedModel, *, is_busy: bool) -> NodeSpeed | None:
        self.doing = "measuring this machine"
        return speed_here(opened.profile.speed_kind, self._gives_up, is_busy=is_busy)

    def _note_doing(self, what: str) -> None:
        self.doing = what

    def _note_fetches(self, fetches: Sequence["FetchStatus"]) -> None:
        self.fetches = tuple(fetches)
        self.doing = fetching(self.fetches)
        self._on_fetch(fetches)
