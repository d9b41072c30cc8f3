"""Apple's counters: what is made of the objects that zeus-apple-silicon 1.1.0 gives."""

from dataclasses import dataclass

import pytest

from tbcluster.hardware.power.meter import Reading
from tbcluster.hardware.power.zeus import Zeus, open_zeus
from tests.hardware.power.test_meter import Clock


@dataclass
class Metrics:
    """`AppleEnergyMetrics`, as bindings/energy_bindings.hpp has it: integers, lists of them, or
    None."""

    cpu_total_mj: int | None = None
    efficiency_cores_mj: list[int] | None = None
    gpu_mj: int | None = None
    gpu_sram_mj: int | None = None
    ane_mj: int | None = None
    dram_mj: int | None = None


class Monitor:
    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def get_cumulative_energy(self) -> Metrics:
        return self.metrics


def test_millijoules_since_it_was_opened_are_added_up() -> None:
    clock = Clock()
    monitor = Monitor(Metrics(500_000, [100, 200], 1_000, 10, 0, 7_000))
    zeus = Zeus(monitor, clock)
    assert zeus.read() == Reading(0.0, None)
    monitor.metrics = Metrics(510_000, [9_000, 9_000], 21_000, 1_010, 0, 8_000)
    clock.now += 4
    assert zeus.read() == Reading(32.0, 8.0)


def test_a_channel_that_a_chip_lacks_counts_for_nothing() -> None:
    monitor = Monitor(Metrics(1_000, gpu_mj=2_000))
    zeus = Zeus(monitor, Clock())
    monitor.metrics = Metrics(2_000, gpu_mj=3_000, dram_mj=50_000)
    assert zeus.read().joules == pytest.approx(2.0)
    monitor.metrics = Metrics(3_000, gpu_mj=3_500, dram_mj=51_000)
    assert zeus.read().joules == pytest.approx(4.5)


def test_a_channel_that_began_anew_does_not_fall() -> None:
    monitor = Monitor(Metrics(9_000))
    zeus = Zeus(monitor, Clock())
    monitor.metrics = Metrics(1_500)
    assert zeus.read().joules == pytest.approx(1.5)


def test_a_chip_whose_processor_is_not_counted_has_no_meter() -> None:
    assert not Zeus(Monitor(Metrics(gpu_mj=5)), Clock()).has_counts


def test_without_the_package_there_is_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "zeus_apple_silicon", None)
    assert open_zeus() is None
