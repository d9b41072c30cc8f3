"""The watch over a real cluster, with a meter that says what the test wants."""

from collections.abc import Iterator

import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.energy.ledger import Bill
from tbcluster.cluster.energy.this_machine import ThisMachine
from tbcluster.cluster.energy.watch import EnergyWatch, NodeWatts
from tbcluster.cluster.opening import THIS_MACHINE
from tbcluster.cluster.streams import stream
from tbcluster.core import Output
from tbcluster.errors import RackError
from tbcluster.hardware.gauges import GaugeReader
from tbcluster.hardware.power.meter import Reading
from tbcluster.machine import Gauges, Machine, NodeState, NodeView
from tests.doubles.waiting import wait_until
from tests.hardware.power.test_meter import Said

MODEL = "tbcluster-demo"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(stages=2) as running:
        yield running


class Bench:
    """A watch whose clock is as slow as the test: a look a second, whatever is computed between."""

    def __init__(self, cluster: Cluster) -> None:
        self.meter = Said("rapl", Reading(0.0, 50.0))
        self.now = 0.0
        machine = Machine("host", "Linux", "x", "0", "3")
        here = ThisMachine(lambda: GaugeReader(self.meter), lambda: machine)
        self.watch = EnergyWatch(lambda: {MODEL: cluster}, here=here, clock=lambda: self.now)
        self.watch.sample()

    def pass_second(self, joules: float) -> None:
        self.now += 1.0
        before = self.meter.reading.joules or 0.0
        self.meter.reading = Reading(before + joules, 50.0)
        self.watch.sample()


def generate(cluster: Cluster) -> list[Output]:
    return list(stream(cluster, cluster.make_request([5, 6, 7, 8], max_tokens=6)))


def test_what_this_machine_draws_is_told_by_its_name(cluster: Cluster) -> None:
    bench = Bench(cluster)
    assert bench.watch.watts() == {THIS_MACHINE: NodeWatts(50.0, "rapl")}
    bench.pass_second(52.0)
    assert bench.watch.book.nodes()[THIS_MACHINE].joules == 52.0
    assert bench.watch.here is not None
    wait_until(lambda: bench.watch.here.state()[0].hostname == "host", "the machine was seen")


def test_a_request_pays_for_what_was_computed_while_it_ran(cluster: Cluster) -> None:
    bench = Bench(cluster)
    outputs = generate(cluster)
    statistics = cluster.statistics()
    bench.pass_second(100.0)
    total = bench.watch.book.joules_between(0.0, 1.0)
    assert total is not None
    assert 0 < total <= 100.0
    per_token = bench.watch.joules_per_token()
    assert per_token is not None
    assert per_token == pytest.approx(total / len(outputs), rel=0.5)
    compute_us = sum(stage.compute_us for stage in statistics.stages)
    assert bench.watch.request_joules(MODEL, compute_us, 0.0, 1.0) is not None
    assert bench.watch.request_joules(MODEL, 0, 0.0, 1.0) is None
    assert bench.watch.request_joules("another", 5, 0.0, 1.0) is None


def test_bills_are_settled_when_the_second_is_over_in_which_they_ended(cluster: Cluster) -> None:
    bench = Bench(cluster)
    generate(cluster)
    bench.watch.ledger.enter(Bill(MODEL, "anna", 1e9, 6, 0.5))  # all there is
    bench.pass_second(100.0)
    models, keys = bench.watch.ledger.costs()
    assert keys["anna"].joules == pytest.approx(bench.watch.book.joules_between(0.0, 1.0))
    assert models[MODEL].joules == keys["anna"].joules


def test_work_that_no_request_has_asked_for_is_not_kept_for_the_next_one(cluster: Cluster) -> None:
    bench = Bench(cluster)
    generate(cluster)
    bench.pass_second(100.0)
    bench.pass_second(1.0)
    bench.watch.ledger.enter(Bill(MODEL, None, 1e9, 6, 2.5))
    bench.pass_second(1.0)
    assert bench.watch.ledger.costs()[0][MODEL].num_priced_tokens == 0


def test_without_a_meter_and_a_known_chip_nothing_is_told(cluster: Cluster) -> None:
    bench = Bench(cluster)
    bench.meter.reading = Reading()
    bench.watch.sample()
    generate(cluster)
    bench.now += 1.0
    bench.watch.sample()
    assert bench.watch.watts() == {}
    assert bench.watch.request_joules(MODEL, 1000, 0.0, 1.0) is None
    assert bench.watch.joules_per_token() is None


def test_nodes_of_a_rack_count_while_they_are_online(cluster: Cluster) -> None:
    gauges = Gauges(0.0, watts=20.0, joules=5.0, power_source="zeus")
    online = NodeView("1", "one", NodeState.ONLINE, gauges=gauges)
    nodes = [online, NodeView("2", "two", NodeState.OFFLINE, gauges=gauges)]
    watch = EnergyWatch(dict, lambda: nodes)
    watch.sample()
    assert watch.watts() == {"one": NodeWatts(20.0, "zeus")}
    nodes.clear()
    watch.sample()
    assert watch.watts() == {}


def test_a_rack_that_is_not_up_yet_is_waited_for() -> None:
    def not_yet() -> list[NodeView]:
        raise RackError("not started")

    watch = EnergyWatch(dict, not_yet)
    watch.sample()
    assert watch.watts() == {}


def test_it_looks_by_itself_until_it_is_closed(cluster: Cluster) -> None:
    meter = Said("rapl", Reading(1.0, 2.0))
    here = ThisMachine(lambda: GaugeReader(meter), lambda: Machine("h", "L", "x", "0", "3"))
    watch = EnergyWatch(lambda: {MODEL: cluster}, here=here, every_s=0.01).start()
    wait_until(lambda: bool(watch.watts()), "it has looked")
    watch.close()
    assert meter.is_closed
