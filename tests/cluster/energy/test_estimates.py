"""What a node without a meter is taken to draw."""

from pathlib import Path

import pytest

from tbcluster.cluster.energy.estimates import Estimates
from tbcluster.cluster.energy.node_count import ESTIMATE, NodeEnergy
from tbcluster.cluster.plan_rack import chip_by_name, chip_power
from tbcluster.machine import Gauges, Machine, NodeState, NodeView


def view(chip: str | None, gauges: Gauges | None = None) -> NodeView:
    machine = Machine("host", "macOS", "arm64", "0", "3", chip=chip, memory_bytes=64 << 30)
    return NodeView("id", "one", NodeState.ONLINE, machine=machine, gauges=gauges)


def test_a_meter_comes_before_any_estimate() -> None:
    gauges = Gauges(0.0, watts=12.0, joules=99.0, power_source="zeus")
    said = Estimates().energy(view("Apple M4 Pro", gauges), 1.0)
    assert said == NodeEnergy(99.0, 12.0, "zeus")


def test_a_known_chip_draws_between_idle_and_decoding_by_how_busy_it_is() -> None:
    node = view("Apple M4 Pro", Gauges(0.0, watts=12.0))
    power = chip_power(chip_by_name(node.machine))
    assert power is not None
    estimates = Estimates()
    assert estimates.energy(node, 0.0) == NodeEnergy(None, power.idle_w, ESTIMATE)
    assert estimates.energy(node, 5.0).watts == power.decode_w
    half = estimates.energy(node, 0.5).watts
    assert half == pytest.approx((power.idle_w + power.decode_w) / 2)


@pytest.mark.parametrize("chip", [None, "AMD EPYC 7763 64-Core Processor"])
def test_nothing_is_made_up_for_another(chip: str | None) -> None:
    assert Estimates().energy(view(chip), 1.0) == NodeEnergy()
    assert Estimates().energy(NodeView("id", "one", NodeState.ONLINE), 1.0) == NodeEnergy()


def test_a_list_of_chips_that_cannot_be_read_does_no_more_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbcluster.cluster.plan_rack.config_folder", lambda: tmp_path)
    (tmp_path / "chips.toml").write_text("chips = 5")
    assert Estimates().energy(view("Apple M4 Pro"), 1.0) == NodeEnergy()
