"""What has been found out to load a model, kept so that a coordinator that comes after this one
need not find it out again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tbcluster.cluster.plan_file import Placement
from tbcluster.planner.plan import Plan, Wishes
from tbcluster.wire.control import Reference

if TYPE_CHECKING:
    from tbcluster.cluster.order import Order


class SavedOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of an order what its plan depends on, beside the memory that other models hold."""

    wishes: Wishes
    by_hand: Placement
    kv_memory_bytes: int | None
    kv_bits: int | None
    keeps_to_promise: bool
    shortens_context: bool


class SavedPreparation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that was prepared on a rack, loaded and checked.

    Attributes:
        identity: Of the model as it was (`OpenedModel.identity`).
        revision: The commit that was served, for a model of the hub: it is not asked again. Empty
            for any other.
        plan: As it was at last; recovery may have changed it since the model was loaded.
        folders: What each node loads from.
        reference: What the unsharded model says to the parity probe; None where no machine could
            run it.
    """

    order: SavedOrder
    identity: str
    revision: str
    plan: Plan
    folders: Mapping[str, str]
    reference: Reference | None = None

    @property
    def nodes(self) -> frozenset[str]:
        """The names of those that run a stage."""
        return frozenset(stage.node for replica in self.plan.replicas for stage in replica.stages)


def saved_order(order: "Order") -> SavedOrder:
    """What a plan for this order depends on."""
    kv = order.kv
    return SavedOrder(
        wishes=order.wishes,
        by_hand=tuple(tuple(stages) for stages in order.by_hand),
        kv_memory_bytes=kv.memory_bytes,
        kv_bits=kv.bits,
        keeps_to_promise=kv.keeps_to_promise,
        shortens_context=order.shortens_context,
    )
