"""The energy counters of Apple's chips, through zeus-apple-silicon.

It reads IOReport's "Energy Model" channels in this process, without root, in millijoules from some
fixed time on. They are Apple's model of the chip (processor, GPU, Neural Engine, memory), not a
sensor at the wall; a field is None where a chip has no such channel.
"""

import time
from collections.abc import Callable
from importlib import import_module
from typing import Protocol

from tbcluster.hardware.power.meter import Pace, Reading

FIELDS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "ane_mj", "dram_mj")
MILLIJOULES = 1e3


class Monitor(Protocol):
    """zeus' `AppleEnergyMonitor`, as far as it is used."""

    def get_cumulative_energy(self) -> object:
        """Its `AppleEnergyMetrics`: the fields above among others, each an integer or None."""
        ...


class Zeus:
    """The chip."""

    source = "zeus"

    def __init__(self, monitor: Monitor, clock: Callable[[], float] = time.monotonic) -> None:
        self._monitor = monitor
        self._pace = Pace(clock)
        self._joules = 0.0
        self._before = _counts(monitor)

    @property
    def has_counts(self) -> bool:
        """Whether it counts the processor, without which the rest says little."""
        return "cpu_total_mj" in self._before

    def read(self) -> Reading:
        """What was counted since it was opened; a channel that begins anew counts from zero."""
        now = _counts(self._monitor)
        for field, count in now.items():
            before = self._before.get(field, count)
            self._joules += (count - before if count >= before else count) / MILLIJOULES
        self._before = now
        return Reading(self._joules, self._pace.watts(self._joules))

    def close(self) -> None:
        """It ends with this process."""


def open_zeus(clock: Callable[[], float] = time.monotonic) -> Zeus | None:
    """None where it is not installed, or this chip's counters cannot be read."""
    try:
        monitor: Monitor = import_module("zeus_apple_silicon").AppleEnergyMonitor()
        meter = Zeus(monitor, clock)
    # RuntimeError: IOReport refused the subscription.
    except (ImportError, AttributeError, RuntimeError):
        return None
    return meter if meter.has_counts else None


def _counts(monitor: Monitor) -> dict[str, int]:
    metrics = monitor.get_cumulative_energy()
    found = ((field, getattr(metrics, field, None)) for field in FIELDS)
    return {field: count for field, count in found if isinstance(count, int)}
