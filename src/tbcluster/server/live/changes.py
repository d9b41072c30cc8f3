"""What happened between two views, in words. Pure.

Models that come and go are not among it: the notes of whoever loads them say so.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tbcluster.cluster.stage_status import StageState
from tbcluster.cluster.status import ClusterState
from tbcluster.machine import NodeState
from tbcluster.server.live.view import LiveModel, LiveNode, LiveStage, LiveView


class Change(NamedTuple):
    """An event without its number and time."""

    kind: str
    level: str
    text: str


def changes(before: LiveView, now: LiveView) -> Iterator[Change]:
    """What a person would want to be told."""
    were = {node.name: node for node in before.nodes}
    for node in now.nodes:
        yield from _of_node(were.get(node.name), node)
    models = {model.name: model for model in before.models}
    for model in now.models:
        if (was_model := models.get(model.name)) is not None:
            yield from _of_model(was_model, model)


def _of_node(was: LiveNode | None, node: LiveNode) -> Iterator[Change]:
    was_online = was is not None and was.state == NodeState.ONLINE
    is_online = node.state == NodeState.ONLINE
    if was_online and not is_online:
        yield Change("node_lost", "bad", f"{node.name} is lost")
    elif is_online and was is not None and not was_online:
        yield Change("node_back", "good", f"{node.name} is online")
    if was is not None and was.is_drained != node.is_drained:
        word = "is drained" if node.is_drained else "takes part again"
        yield Change("note", "info", f"{node.name} {word}")


def _of_model(was: LiveModel, model: LiveModel) -> Iterator[Change]:
    stages = {(stage.replica, stage.index): stage for stage in was.stages}
    for stage in model.stages:
        if (earlier := stages.get((stage.replica, stage.index))) is not None:
            yield from _of_stage(model.name, earlier, stage)
    if model.num_recoveries > was.num_recoveries:
        seconds = model.last_recovery_s
        took = f" after {seconds:.1f} s" if seconds is not None else ""
        yield Change("recovered", "good", f"{model.name} has recovered{took}")
    if model.state != was.state:
        yield from _of_state(was, model)


def _of_stage(model: str, was: LiveStage, stage: LiveStage) -> Iterator[Change]:
    name = f"{model}: stage {stage.index} (layers {stage.first_layer}-{stage.last_layer})"
    is_lost = stage.state == StageState.DEAD != was.state or (
        stage.num_restarts > was.num_restarts and was.state != StageState.DEAD
    )
    if is_lost:
        yield Change("stage_lost", "bad", f"{name} on {stage.node} is lost")
    is_moved = stage.node != was.node
    is_back = stage.state == StageState.READY and (
        was.state == StageState.DEAD or stage.num_restarts > was.num_restarts
    )
    if is_moved or is_back or (was.num_restarts and _is_ready_now(was, stage)):
        yield Change("stage_back", "good", f"{name} runs on {stage.node}")


def _is_ready_now(was: LiveStage, stage: LiveStage) -> bool:
    return stage.state == StageState.READY != was.state


_WORDS = {
    ClusterState.READY: ("good", "is ready"),
    ClusterState.RECOVERING: ("warning", "is recovering"),
    ClusterState.STARVED: ("bad", "has too few nodes"),
    ClusterState.FAILED: ("bad", "has failed"),
}


def _of_state(was: LiveModel, model: LiveModel) -> Iterator[Change]:
    state = ClusterState(model.state)
    if state not in _WORDS:
        return
    level, words = _WORDS[state]
    why = model.error if state is ClusterState.FAILED else model.doing
    yield Change("model", level, f"{model.name} {words}{f': {why}' if why else ''}")
