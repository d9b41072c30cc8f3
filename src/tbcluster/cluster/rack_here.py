"""This machine alone, as the planner sees it."""

from tbcluster.cluster.chip_speeds import assumed_speed
from tbcluster.cluster.opening import THIS_MACHINE, OpenedModel
from tbcluster.cluster.plan_rack import one_machine
from tbcluster.errors import StageError
from tbcluster.model.device import memory_limit_bytes
from tbcluster.planner.nodes import NodeSpeed, PlanRack


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
