"""From facts to the view of a moment. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tbcluster.cluster.opening import THIS_MACHINE
from tbcluster.cluster.stage_status import StageState, StageStatus
from tbcluster.machine import Gauges, Machine, NodeState, NodeView
from tbcluster.planner.plan import Plan, PlannedStage
from tbcluster.server.live.facts import Facts, ModelFacts
from tbcluster.server.live.links import live_links
from tbcluster.server.live.rates import Rates, StageRates, rates
from tbcluster.server.live.view import (
    LiveModel,
    LiveNode,
    LivePlan,
    LivePlannedStage,
    LiveStage,
    LiveView,
)
from tbcluster.server.problems import without_paths

MS_PER_S = 1e3
ESTIMATE = "estimate"


def build_view(before: Facts | None, now: Facts) -> LiveView:
    """What is seen now, without events; rates are since `before`."""
    models = tuple(_model(name, before, now) for name in now.models)
    nodes = tuple(_nodes(now, models))
    watts = [node.watts for node in nodes if node.state == NodeState.ONLINE]
    return LiveView(
        at=now.at,
        version=now.version,
        state=now.state,
        cluster_name=now.rack.cluster_name if now.rack is not None else None,
        doing=_told(now.doing),
        default_model=now.default_model,
        loadable=now.loadable,
        tokens_per_s=sum(model.tokens_per_s for model in models),
        prompt_tokens_per_s=sum(model.prompt_tokens_per_s for model in models),
        num_running=sum(model.num_running for model in models),
        num_waiting=sum(model.num_waiting for model in models),
        watts=_sum(watts),
        is_estimate=any(power.source == ESTIMATE for power in now.power.values()),
        joules_per_token=now.joules_per_token,
        nodes=nodes,
        links=tuple(live_links(now.rack, models)) if now.rack is not None else (),
        models=models,
    )


def _sum(values: Sequence[float | None]) -> float | None:
    """None where one is not known, or there is none."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _told(words: str | None) -> str | None:
    return None if words is None else without_paths(words)


# Models


def _model(name: str, before: Facts | None, now: Facts) -> LiveModel:
    facts = now.models[name]
    status, statistics = facts.status, facts.statistics
    was = before.models.get(name) if before is not None else None
    done = Rates()
    if statistics is not None:
        seconds = now.now - before.now if before is not None else 0.0
        done = rates(was.statistics if was is not None else None, statistics, seconds)
    return LiveModel(
        name=name,
        state=status.state.value,
        doing=_told(status.doing),
        error=_told(status.error),
        context_length=facts.context_length,
        num_open=status.num_requests,
        num_running=statistics.num_running if statistics is not None else 0,
        num_waiting=statistics.num_waiting if statistics is not None else 0,
        tokens_per_s=done.tokens_per_s,
        prompt_tokens_per_s=done.prompt_tokens_per_s,
        step_ms=done.step_ms,
        wire_ms=done.wire_ms,
        num_recoveries=sum(status.recoveries.num_recoveries.values()),
        last_recovery_s=status.recoveries.last_seconds,
        stages=tuple(
            _stage(index, stage, facts, done) for index, stage in enumerate(status.stages)
        ),
        plan=_plan(facts.plan) if facts.plan is not None else None,
    )


def _stage(index: int, stage: StageStatus, facts: ModelFacts, done: Rates) -> LiveStage:
    statistics = facts.statistics
    spent = done.stages[index] if index < len(done.stages) else StageRates()
    has_kv = statistics is not None and index < len(statistics.kv_budget_bytes)
    planned = _planned(facts.plan, stage)
    is_loaded = stage.state is StageState.READY
    loaded_bytes = stage.total_bytes or stage.memory_bytes if is_loaded else stage.loaded_bytes
    return LiveStage(
        index=stage.index,
        replica=stage.replica,
        node=stage.node or THIS_MACHINE,
        first_layer=stage.layers.start,
        last_layer=stage.layers.end - 1,
        state=stage.state.value,
        loaded_bytes=stage.loaded_bytes,
        total_bytes=stage.total_bytes,
        weight_bytes=planned.weight_bytes if is_loaded and planned else loaded_bytes,
        kv_used_bytes=statistics.kv_used_bytes[index] if statistics and has_kv else 0,
        kv_budget_bytes=statistics.kv_budget_bytes[index] if statistics and has_kv else 0,
        compute_ms=spent.compute_ms,
        wire_ms=spent.wire_ms,
        wait_ms=spent.wait_ms,
        load=spent.load,
        num_restarts=stage.num_restarts,
    )


def _planned(plan: Plan | None, stage: StageStatus) -> PlannedStage | None:
    """What the plan says of it; a recovery may have left the plan behind for a moment."""
    if plan is None or stage.replica >= len(plan.replicas):
        return None
    stages = plan.replicas[stage.replica].stages
    return next((one for one in stages if one.layers == stage.layers), None)


def _plan(plan: Plan) -> LivePlan:
    return LivePlan(
        context=plan.context,
        streams=plan.streams,
        tokens_per_s=sum(replica.tokens_per_s for replica in plan.replicas),
        stream_tokens_per_s=max(replica.stream_tokens_per_s for replica in plan.replicas),
        prefill_tokens_per_s=max(replica.prefill_tokens_per_s for replica in plan.replicas),
        stages=tuple(
            LivePlannedStage(
                node=stage.node,
                replica=number,
                first_layer=stage.layers.start,
                last_layer=stage.layers.end - 1,
                weight_bytes=stage.weight_bytes,
                kv_bytes=stage.kv_bytes,
                activation_bytes=stage.activation_bytes,
                reserve_bytes=stage.reserve_bytes,
                memory_bytes=stage.memory_bytes,
                decode_ms=stage.decode_s * MS_PER_S,
                hop_ms=stage.hop_s * MS_PER_S,
            )
            for number, replica in enumerate(plan.replicas)
            for stage in replica.stages
        ),
        reasons=tuple(map(without_paths, plan.reasons)),
        left_out=tuple((one.node, without_paths(one.because)) for one in plan.left_out),
    )


# Nodes


def _nodes(now: Facts, models: Sequence[LiveModel]) -> Iterator[LiveNode]:
    by_node: dict[str, list[LiveStage]] = {}
    for model in models:
        for stage in model.stages:
            by_node.setdefault(stage.node, []).append(stage)
    for node in _views(now):
        yield _node(node, by_node.get(node.name, ()), now)


def _views(now: Facts) -> Sequence[NodeView]:
    """The rack's nodes, or this machine as if it were one."""
    if now.rack is None:
        return now.here
    return [node for node in now.rack.nodes if node.state is not NodeState.REVOKED]


def _node(node: NodeView, stages: Sequence[LiveStage], now: Facts) -> LiveNode:
    is_online = node.state is NodeState.ONLINE
    gauges = node.gauges if is_online else None
    power = now.power.get(node.name) if is_online else None
    alive = [stage for stage in stages if stage.state != StageState.DEAD]
    return LiveNode(
        name=node.name,
        state=node.state.value,
        is_head=node.is_head,
        is_drained=node.is_drained,
        weight_bytes=sum(stage.weight_bytes for stage in alive),
        kv_used_bytes=sum(stage.kv_used_bytes for stage in alive),
        kv_budget_bytes=sum(stage.kv_budget_bytes for stage in alive),
        # Stages of one machine may compute at once.
        load=max((stage.load for stage in stages), default=0.0),
        watts=power.watts if power is not None else None,
        power_source=power.source if power is not None else None,
        seconds_since_heard=node.seconds_since_heard,
        **_machine(node.machine),
        **_gauges(gauges, node.machine),
    )


def _machine(machine: Machine | None) -> Mapping[str, Any]:
    if machine is None:
        return {}
    compute = machine.compute
    return {
        "chip": machine.chip,
        "system": machine.system,
        "memory_bytes": machine.memory_bytes,
        "budget_bytes": compute.working_set_bytes if compute is not None else None,
    }


def _gauges(gauges: Gauges | None, machine: Machine | None) -> Mapping[str, Any]:
    if gauges is None:
        return {"available_bytes": machine.available_bytes if machine is not None else None}
    return {
        "available_bytes": gauges.available_bytes,
        "cpu_load": gauges.cpu_load,
        "temperature_c": gauges.temperature_c,
    }
