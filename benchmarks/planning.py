"""How long it takes to plan: 61 layers on 8 unequal nodes, 128 layers on 64.

A plan is made in one thread: times are the processor's, so that neighbours do not count.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import permutations

from benchmarks.harness import Bar, Report
from tbcluster.core import CacheCost
from tbcluster.planner.nodes import NodeSpeed, PlanLink, PlanNode, PlanRack
from tbcluster.planner.plan import Wishes
from tbcluster.planner.planning import make_plan
from tbcluster.planner.profile import ModelProfile, PartProfile

GIB = 1 << 30
SEED = 7
NUM_RUNS = 7
ROWS = (1, 2, 4, 8, 16, 64, 512, 2048)


def plan_small(report: Report, num_runs: int) -> None:
    """671B parameters in 61 layers, 8 nodes that differ in all: every order is looked at."""
    profile = _experts(61)
    whole = profile.weight_bytes
    bar = Bar("<", 100, "ms")
    rack = _rack(8, whole // 5)
    report.add("61 layers, 8 nodes, one copy fits", _ms(profile, rack, num_runs), "ms", bar)
    report.add(
        "61 layers, 8 nodes, up to 4 copies fit",
        _ms(profile, _rack(8, whole * 2 // 3), num_runs),
        "ms",
        bar,
    )


def plan_large(report: Report, num_runs: int) -> None:
    """128 layers, 64 nodes that differ in all: orders are tried and improved."""
    profile = _experts(128)
    bar = Bar("<", 5, "s")
    for streams in (4, 64):
        rack = _rack(64, profile.weight_bytes // 20)
        wishes = Wishes(streams=streams)
        seconds = _ms(profile, rack, max(1, num_runs // 3), wishes) / 1e3
        report.add(f"128 layers, 64 nodes, {streams} streams", seconds, "s", bar)


PARTS: dict[str, Callable[[Report, int], None]] = {"small": plan_small, "large": plan_large}


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    report = Report("planning")
    for name, part in PARTS.items():
        if not only or name in only:
            part(report, 1 if quick else NUM_RUNS)
    return report


def _ms(
    profile: ModelProfile, rack: PlanRack, num_runs: int, wishes: Wishes | None = None
) -> float:
    """Median of some plans, the first one included: a command makes one."""
    times = []
    for _ in range(num_runs):
        began = time.process_time()
        make_plan(profile, rack, wishes or Wishes())
        times.append(time.process_time() - began)
    return 1e3 * statistics.median(times)


def _experts(num_layers: int) -> ModelProfile:
    """Shaped like DeepSeek-R1 in 4 bits, 3 dense layers first."""
    caches = (CacheCost(0, 1152),)
    dense = PartProfile(int(0.33e9), int(1.2e9), caches=caches)
    sparse = PartProfile(int(6.5e9), int(1.2e9), int(6.34e9), 256, 8, caches=caches)
    head = PartProfile(int(0.52e9), int(1.85e9))
    return ModelProfile(
        name="experts",
        architecture="deepseek_v3",
        layers=(dense,) * 3 + (sparse,) * (num_layers - 3),
        embedding=PartProfile(int(0.52e9), 0, lookup_bytes=int(0.52e9)),
        head=head,
        shared=PartProfile(0, 0),
        hidden_bytes=14336,
        legal_cuts=tuple(range(1, num_layers)),
        context_length=163840,
        num_visits=1,
        vocab_size=129280,
        weight_kind="4-bit/64",
        file_bytes=0,
        num_parameters=0,
        active_parameters=0,
    )


def _rack(num_nodes: int, memory_bytes: int) -> PlanRack:
    """Nodes of half to one and a half times that memory; no node and no link equals another."""
    drawn = random.Random(SEED)
    nodes = []
    for at in range(num_nodes):
        byte_s = 1 / (drawn.uniform(200, 800) * 1e9)
        row_s = byte_s / drawn.uniform(10, 30)
        rates = tuple((rows, max(byte_s, rows * row_s)) for rows in ROWS)
        speed = NodeSpeed(rates, 165e-6, 0.8e-3, byte_s)
        memory = int(memory_bytes * drawn.uniform(0.5, 1.5))
        nodes.append(PlanNode(f"node{at}", memory, speed, is_head=at == 0))
    links = {
        (one.name, other.name): PlanLink(
            drawn.uniform(50e-6, 1e-3), drawn.choice((0.117e9, 1.1e9, 2e9)) * drawn.uniform(0.9, 1)
        )
        for one, other in permutations(nodes, 2)
    }
    return PlanRack(tuple(nodes), links)
