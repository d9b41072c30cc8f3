"""Simulating a model that was planned, as commands do."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.planning import PlannedModel
from tbcluster.cluster.stages_at_once import stages_at_once
from tbcluster.errors import SimulationError
from tbcluster.planner.nodes import SpeedSource
from tbcluster.planner.plan import Wishes
from tbcluster.planner.words import and_list
from tbcluster.simulator.failures import Failure
from tbcluster.simulator.results import SimulationResult
from tbcluster.simulator.simulation import Scenario, simulate
from tbcluster.simulator.workload import Workload


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulation, and what it was made of.

    Attributes:
        name: Of the rack.
    """

    name: str
    planned: PlannedModel
    result: SimulationResult


def with_stages_at_once(planned: PlannedModel) -> PlannedModel:
    """With how many of its stages compute at once, where several run on a machine that is here and
    has several cores.

    Raises:
        StageError: It cannot be measured.
    """
    nodes = planned.rack.nodes
    num_stages = sum(len(replica.stages) for replica in planned.plan.replicas)
    if len(nodes) > 1 or num_stages < 2 or nodes[0].speed.source is not SpeedSource.MEASURED:
        return planned
    at_once = stages_at_once(planned.profile.speed_kind, nodes[0].speed)
    return replace(planned, at_once=at_once)


def simulate_planned(
    planned: PlannedModel,
    workload: Workload,
    *,
    name: str,
    failures: tuple[Failure, ...] = (),
    most_s: float | None = None,
    wishes: Wishes | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Simulated:
    """Let clients use a planned model.

    Raises:
        SimulationError: A node that is to fail is none of the rack's, or its head.
    """
    wishes = wishes or Wishes()
    known = [node.name for node in planned.rack.nodes]
    for failure in failures:
        if failure.node not in known:
            raise SimulationError(f"--fail {failure.node}: the rack has {and_list(known)}")
        if any(node.is_head and node.name == failure.node for node in planned.rack.nodes):
            raise SimulationError(
                f"--fail {failure.node}: it is the head node, without which nothing is answered: "
                "name another one"
            )
    scenario = Scenario(
        planned.profile,
        planned.rack,
        planned.plan,
        workload,
        kv=KvOptions(memory_bytes=wishes.kv_memory_bytes, bits=wishes.kv_bits),
        wishes=wishes,
        failures=failures,
        at_once=planned.at_once,
        most_s=most_s or float("inf"),
        on_progress=on_progress,
    )
    return Simulated(name, planned, simulate(scenario))
