"""How many stages of this machine compute at full speed at the same time."""

import os
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from tbcluster.cluster.own_speed import measure_here
from tbcluster.hardware.cgroups import cpu_limit
from tbcluster.model.device import CPU, current_device
from tbcluster.planner.nodes import NodeSpeed

# Steps of many rows do not come from every machine's measurement.
MOST_ROWS = 16


def stages_at_once(kind: str, alone: NodeSpeed) -> float:
    """1 on a GPU. On a CPU, where a stage takes a core, as many as there are cores, less what they
    take from each other: cores share memory, and some are halves of one. Takes some seconds there.

    Args:
        kind: Of the weights (`ModelProfile.speed_kind`).
        alone: The speed of this machine while nothing else computes.

    Raises:
        StageError: It cannot be measured.
    """
    if current_device().backend != CPU:
        return 1.0
    number = max(1, int(cpu_limit() or os.cpu_count() or 1))
    if number == 1:
        return 1.0
    with ThreadPoolExecutor(number) as pool:
        together = list(pool.map(lambda _: measure_here(kind), range(number)))
    slower = median(_ratio(one, alone) for one in together)
    return min(float(number), max(1.0, number / slower))


def _ratio(one: NodeSpeed, other: NodeSpeed) -> float:
    """How many times as long decode steps take."""
    other_rates = dict(other.rates)
    ratios = [
        rate / other_rates[rows]
        for rows, rate in one.rates
        if rows <= MOST_ROWS and rows in other_rates
    ]
    return median(ratios) if ratios else 1.0
