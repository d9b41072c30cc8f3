"""Planning alone, as commands that load nothing do: for a rack that is there, for one that a file
describes, or for this machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from tbcluster.cluster.opening import (
    OpenedModel,
    model_to_plan,
    plan_here,
    plan_model,
)
from tbcluster.cluster.own_speed import speed_here
from tbcluster.cluster.plan_rack import plan_rack, rack_of_file
from tbcluster.cluster.plan_request import PlanRequest
from tbcluster.cluster.rack_file import RackFile
from tbcluster.cluster.rack_here import rack_here
from tbcluster.cluster.speed_book import known_speeds
from tbcluster.cluster.trust.folder import TrustFolder
from tbcluster.errors import PortInUseError
from tbcluster.machine import NodeState, RackView
from tbcluster.model.device import Device
from tbcluster.planner.nodes import NodeSpeed, PlanRack
from tbcluster.planner.plan import Plan
from tbcluster.planner.profile import ModelProfile

# What racks that are only described are taken for: Macs compute in the checkpoint's own type.
METAL = Device("Metal GPU", None)


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A plan, and what it was made of.

    Attributes:
        notes: Lines that a user should see.
        at_once: How many stages of one node compute at full speed at the same time; 1 on a GPU.
    """

    opened: OpenedModel
    rack: PlanRack
    plan: Plan
    notes: tuple[str, ...] = ()
    at_once: float = 1.0

    @property
    def profile(self) -> ModelProfile:
        """What the model asks of the nodes."""
        return self.opened.profile


def plan_described(request: PlanRequest, file: RackFile) -> PlannedModel:
    """For a rack of which nothing needs to exist.

    Raises:
        RackFileError: The file lacks what a plan needs.
        TbclusterError: As `opening.model_to_plan` and `opening.plan_model`.
    """
    opened = model_to_plan(request.model, request.bits, request.kv_bits, device=METAL)
    rack = rack_of_file(file, opened.profile.weight_kind)
    plan = plan_model(opened, rack, request.wishes, request.by_hand)
    return PlannedModel(opened, rack, plan, opened.notes)


def plan_alone(
    request: PlanRequest,
    memory_bytes: int | None = None,
    on_doing: Callable[[str], None] = lambda _: None,
) -> PlannedModel:
    """For this machine, whose speed is measured if it is not known.

    Args:
        memory_bytes: The most that models may take here; None for what the system says.
        on_doing: Told what is being done, where that takes seconds.

    Raises:
        TbclusterError: As `opening.model_to_plan` and `opening.plan_model`.
    """
    opened = model_to_plan(request.model, request.bits, request.kv_bits)
    measuring = partial(on_doing, "measuring this machine, once")
    speed = speed_here(opened.profile.speed_kind, on_measuring=measuring)
    on_doing("planning")
    rack = rack_here(opened, memory_bytes, speed=speed)
    plan = plan_here(opened, rack, request.wishes, request.by_hand)
    return PlannedModel(opened, rack, plan, opened.notes)


def plan_on_rack(
    request: PlanRequest, folder: TrustFolder, memory_bytes: int | None = None
) -> PlannedModel:
    """For the rack whose head this machine is, whether a coordinator runs or not. Nodes whose speed
    is not known are measured, but not while a coordinator runs: they may be busy.

    Args:
        memory_bytes: The most that models may take on this machine, unless an agent or coordinator
            that runs here knows its own.

    Raises:
        RackError: This machine is no head node, or the coordinator does not answer.
        TbclusterError: As `opening.model_to_plan` and `opening.plan_model`.
    """
    # A plan for one machine needs none of it, and it takes its time to import.
    from tbcluster.cluster.rack.ask import ask_rack, gathered

    opened = model_to_plan(request.model, request.bits, request.kv_bits)
    kind = opened.profile.speed_kind
    try:
        with gathered(folder, memory_bytes=memory_bytes) as rack:
            view, speeds = rack.view(), rack.speeds(kind)
    except PortInUseError:
        view = ask_rack(folder)
        speeds = known_speeds(folder, view.nodes, kind)
    return plan_viewed(request, opened, view, speeds)


def plan_viewed(
    request: PlanRequest, opened: OpenedModel, view: RackView, speeds: Mapping[str, NodeSpeed]
) -> PlannedModel:
    """For the nodes of a rack that are online now.

    Args:
        speeds: What was measured, by node id.

    Raises:
        TbclusterError: As `opening.plan_model`.
    """
    kind = opened.profile.weight_kind
    online = [node for node in view.nodes if node.state is NodeState.ONLINE]
    offline = [node for node in view.nodes if node.state is NodeState.OFFLINE]
    rack = replace(
        plan_rack(online, view.links, speeds, kind),
        offline=plan_rack(offline, (), speeds, kind).nodes,
    )
    plan = plan_model(opened, rack, request.wishes, request.by_hand)
    return PlannedModel(opened, rack, plan, (*opened.notes, *_notes(view)))


def _notes(view: RackView) -> list[str]:
    """What this plan does not look at."""
    away = [
        f"{node.name} is {node.state}: planned without it"
        for node in view.nodes
        if node.state not in (NodeState.ONLINE, NodeState.REVOKED)
    ]
    served = f"planned as if {view.serving} were not being served" if view.serving else None
    return [*away, *([served] if served else [])]
