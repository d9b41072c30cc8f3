"""From what was recorded to figures."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tbcluster.simulator.replica import Life
from tbcluster.simulator.results import (
    NodeUse,
    Percentiles,
    RequestRecord,
    SimulationResult,
    StageUse,
)

if TYPE_CHECKING:
    from tbcluster.simulator.simulation import Simulation

MAX_REFUSALS = 5


def summary(simulation: "Simulation") -> SimulationResult:
    """What a simulation has found."""
    records = simulation.records
    begin_s = min((record.arrival_s for record in records), default=0.0)
    end_s = max((record.last_s for record in records if record.last_s is not None), default=begin_s)
    if simulation.num_unanswered:
        end_s = max(end_s, min(simulation.events.now, simulation.scenario.most_s))
    seconds = end_s - begin_s
    num_tokens = sum(record.num_tokens for record in records)
    num_prompt = sum(record.num_prompt for record in records if record.first_s is not None)
    nodes = _nodes(simulation, seconds)
    watts = [node.watts for node in nodes]
    total_w = sum(w for w in watts if w is not None) if None not in watts else None
    refusals = [record.error for record in records if record.error is not None]
    prices = [node.price_usd for node in simulation.scenario.rack.nodes]
    return SimulationResult(
        seconds=seconds,
        num_requests=len(records),
        num_unanswered=simulation.num_unanswered,
        num_refused=len(refusals),
        refusals=tuple(dict.fromkeys(refusals))[:MAX_REFUSALS],
        num_prompt_tokens=num_prompt,
        num_tokens=num_tokens,
        num_preemptions=sum(one.loop.counters.num_preemptions for one in simulation.replicas),
        tokens_per_s=num_tokens / seconds if seconds else 0.0,
        prompt_tokens_per_s=num_prompt / seconds if seconds else 0.0,
        stream_tokens_per_s=_stream_speed(records),
        first_token=Percentiles.of(
            [one.first_s - one.arrival_s for one in records if one.first_s is not None]
        ),
        gap=Percentiles.of(simulation.gaps),
        duration=Percentiles.of(
            [
                one.last_s - one.arrival_s
                for one in records
                if one.last_s is not None and one.has_ended
            ]
        ),
        stages=_stages(simulation, end_s),
        nodes=nodes,
        watts=total_w,
        joules_per_token=total_w * seconds / num_tokens if total_w and num_tokens else None,
        price_usd=sum(p for p in prices if p is not None) if None not in prices else None,
        happenings=tuple(simulation.failures.happenings),
        spans=tuple(simulation.spans),
    )


def _stream_speed(records: list[RequestRecord]) -> float | None:
    speeds = sorted(
        (one.num_tokens - 1) / (one.last_s - one.first_s)
        for one in records
        if one.first_s is not None and one.last_s is not None and one.last_s > one.first_s
    )
    return speeds[len(speeds) // 2] if speeds else None


def _stages(simulation: "Simulation", end_s: float) -> tuple[StageUse, ...]:
    return tuple(
        use
        for index, replica in enumerate(simulation.replicas)
        for life in replica.lives
        for use in _of_life(index, life, end_s)
    )


def _of_life(index: int, life: Life, end_s: float) -> Iterator[StageUse]:
    ended_s = min(end_s, life.ended_at if life.ended_at is not None else end_s)
    seconds = max(ended_s - life.began_at, 1e-9)
    parts = zip(
        life.pipeline.stages,
        life.planned.stages,
        life.kv_peak_bytes,
        life.kv_budgets,
        strict=True,
    )
    for stage, planned, peak, budget in parts:
        yield StageUse(
            replica=index,
            stage=stage.number,
            node=stage.node,
            layers=planned.layers,
            decode_share=min(1.0, stage.busy_s[False] / seconds),
            prompt_share=min(1.0, stage.busy_s[True] / seconds),
            weight_bytes=planned.weight_bytes,
            kv_peak_bytes=peak,
            kv_budget_bytes=budget,
            began_s=life.began_at,
            ended_s=ended_s,
        )


def _nodes(simulation: "Simulation", seconds: float) -> tuple[NodeUse, ...]:
    at_once = simulation.scenario.at_once
    work: dict[str, list[float]] = {}
    lives = (life for replica in simulation.replicas for life in replica.lives)
    for stage in (stage for life in lives for stage in life.pipeline.stages):
        mine = work.setdefault(stage.node, [0.0, 0.0])
        for kind in (False, True):
            mine[kind] += stage.work_s[kind] / at_once
    used = []
    for node in simulation.scenario.rack.nodes:
        power = node.power
        watts = None
        if power is not None and seconds:
            decode_s, prompt_s = work.get(node.name, (0.0, 0.0))
            watts = (
                power.idle_w
                + (
                    (power.decode_w - power.idle_w) * decode_s
                    + (power.prompt_w - power.idle_w) * prompt_s
                )
                / seconds
            )
        used.append(NodeUse(node.name, watts))
    return tuple(used)
