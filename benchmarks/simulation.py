"""What the simulator says of this machine against what it does, and how fast the simulator is."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.full_pipeline.settings import DecodeSettings
from benchmarks.full_pipeline.sides import random_model
from benchmarks.full_pipeline.streams import Stream, plain_request, random_prompt
from benchmarks.harness import Bar, Report, note
from tbcluster import Cluster
from tbcluster.cluster.opening import open_model, plan_here
from tbcluster.cluster.own_speed import measure_here
from tbcluster.cluster.rack_here import rack_here
from tbcluster.cluster.stages_at_once import stages_at_once
from tbcluster.planner.nodes import NodeSpeed
from tbcluster.planner.plan import Wishes
from tbcluster.planner.planning import make_plan
from tbcluster.simulator.simulation import Scenario, simulate
from tbcluster.simulator.workload import Lengths, closed_loop
from tests.planner.racks import model, node, rack

ERROR_BAR = Bar("<=", 15, "%")
OWN_SPEED_BAR = Bar("<", 30, "s")
PROMPT_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Part:
    """How much is measured."""

    stage_counts: tuple[int, ...] = (1, 2, 4)
    stream_counts: tuple[int, ...] = (1, 4, 16)
    num_rounds: int = 3
    num_tokens: int = 32
    num_simulated: int = 1_000_000


FULL = Part()
QUICK = Part((1, 2), (1, 2), num_rounds=1, num_tokens=6, num_simulated=20_000)


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Run all parts, or those that are named."""
    report = Report("simulation (quick: the figures mean nothing)" if quick else "simulation")
    for name in only or PARTS:
        PARTS[name](report, QUICK if quick else FULL)
    return report


def measure_own_speed(report: Report, part: Part) -> None:
    """Seconds to simulate a million tokens: 64 clients, 4 stages."""
    nodes = [node(f"n{at}", 8000, is_head=at == 0) for at in range(4)]
    profile, on = model(32), rack(*nodes)
    plan = make_plan(profile, on, Wishes(context=2048, streams=64, stages=4))
    each = 200
    drawn = closed_loop(64, part.num_simulated // each, Lengths(64, 512), Lengths(each, each))
    started = time.perf_counter()
    result = simulate(Scenario(profile, on, plan, drawn))
    seconds = time.perf_counter() - started
    per_million = seconds * 1e6 / result.num_tokens
    report.add("a million tokens, 64 clients, 4 stages", per_million, "s", OWN_SPEED_BAR)


def measure_local_stages(report: Report, part: Part) -> None:
    """Tokens a second of real stages on this machine against the simulator's."""
    with random_model(DecodeSettings().model) as path:
        kind = open_model(path, is_on_rack=True).profile.speed_kind
        alone = measure_here(kind)
        readings = [stages_at_once(kind, measure_here(kind)) for _ in range(3)]
        at_once = statistics.median(readings)
        note(f"stages at once: {', '.join(f'{one:.2f}' for one in readings)}")
        report.add("stages that compute at full speed at the same time", at_once, "")
        for num_stages in part.stage_counts:
            for clients in part.stream_counts:
                _measure_case(report, part, path, num_stages, clients, at_once)
        again = measure_here(kind)
        drift = again.rates[0][1] / alone.rates[0][1]
        report.add("this machine's speed at the end against at the beginning", 1 / drift, "x")


PARTS: dict[str, Callable[[Report, Part], None]] = {
    "local-stages": measure_local_stages,
    "own-speed": measure_own_speed,
}


def _measure_case(
    report: Report, part: Part, path: Path, num_stages: int, clients: int, at_once: float
) -> None:
    """The machine's speed is measured before and after each round: it is shared with others."""
    ratios = []
    with Cluster(path, stages=num_stages, wishes=Wishes(context=512, streams=clients)) as cluster:
        _measured(cluster, clients, part.num_tokens)  # warms up
        kind = open_model(path, is_on_rack=True).profile.speed_kind
        before = measure_here(kind)
        for _ in range(part.num_rounds):
            measured = _measured(cluster, clients, part.num_tokens)
            after = measure_here(kind)
            predicted = _predicted(
                path, num_stages, clients, part.num_tokens, _between(before, after), at_once
            )
            ratios.append(predicted / measured)
            note(
                f"{num_stages} stages, {clients} streams: predicted {predicted:.1f}, "
                f"measured {measured:.1f} tokens/s"
            )
            before = after
    error = 100 * abs(statistics.median(ratios) - 1)
    name = f"{num_stages} stages, {clients} streams: predicted against measured"
    report.add(f"{name}, tokens/s", statistics.median(ratios), "x")
    report.add(f"{name}, error", error, "%", ERROR_BAR)


def _measured(cluster: Cluster, clients: int, num_tokens: int) -> float:
    source = random.Random(clients)
    streams = []
    started = time.perf_counter()
    for _ in range(clients):
        stream = Stream()
        prompt = random_prompt(source, PROMPT_TOKENS, 256)
        cluster.submit(plain_request(cluster, prompt, num_tokens), stream)
        streams.append(stream)
    for stream in streams:
        stream.await_end()
    return clients * num_tokens / (max(stream.times[-1] for stream in streams) - started)


def _predicted(
    path: Path, num_stages: int, clients: int, num_tokens: int, speed: NodeSpeed, at_once: float
) -> float:
    opened = open_model(path, is_on_rack=True)
    here = rack_here(opened, speed=speed)
    plan = plan_here(opened, here, Wishes(context=512, streams=clients, stages=num_stages))
    drawn = closed_loop(
        clients, clients, Lengths(PROMPT_TOKENS, PROMPT_TOKENS), Lengths(num_tokens, num_tokens)
    )
    scenario = Scenario(opened.profile, here, plan, drawn, at_once=at_once)
    return simulate(scenario).tokens_per_s


def _between(one: NodeSpeed, other: NodeSpeed) -> NodeSpeed:
    """The mean of two measurements."""
    others = dict(other.rates)
    rates = tuple((rows, (rate + others[rows]) / 2) for rows, rate in one.rates if rows in others)
    return replace(
        one,
        rates=rates,
        layer_s=(one.layer_s + other.layer_s) / 2,
        stage_s=(one.stage_s + other.stage_s) / 2,
        cache_s_per_byte=(one.cache_s_per_byte + other.cache_s_per_byte) / 2,
    )
