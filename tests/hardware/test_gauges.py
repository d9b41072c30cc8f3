"""What changes every second on this machine."""

from tbcluster.hardware.gauges import GaugeReader, GaugeWatch
from tbcluster.hardware.power.meter import Reading
from tbcluster.machine import Gauges
from tests.doubles.waiting import wait_until
from tests.hardware.power.test_meter import Said


def test_gauges_of_a_machine_without_a_meter() -> None:
    gauges = GaugeReader(None, lambda: 1.8e9).read()
    assert gauges.at == 1.8e9
    assert gauges.available_bytes is not None
    assert gauges.available_bytes > 0
    assert gauges.cpu_load is not None
    assert 0 <= gauges.cpu_load <= 1
    assert (gauges.watts, gauges.joules, gauges.power_source) == (None, None, None)


def test_what_a_meter_says_is_told_with_its_name() -> None:
    meter = Said("rapl", Reading(50.0, 9.5, 300.0))
    reader = GaugeReader(meter)
    gauges = reader.read()
    assert (gauges.watts, gauges.joules, gauges.power_source) == (9.5, 50.0, "rapl")
    assert gauges.temperature_c == 300.0  # the hottest of all
    meter.reading = Reading()
    assert reader.read().power_source is None
    reader.close()
    assert meter.is_closed


def test_the_newest_gauges_are_kept() -> None:
    meter = Said("rapl", Reading(1.0, 2.0))
    watch = GaugeWatch(lambda: GaugeReader(meter), every_s=0.01)
    assert watch.newest is None
    watch.start()
    wait_until(lambda: watch.newest is not None, "the gauges were read")
    meter.reading = Reading(2.0, 3.0)
    wait_until(lambda: watch.newest is not None and watch.newest.joules == 2.0, "and read again")
    watch.close()
    assert meter.is_closed


def test_a_machine_whose_gauges_cannot_be_opened_has_none() -> None:
    def fail() -> GaugeReader:
        raise OSError("no")

    watch = GaugeWatch(fail)
    watch.start()
    watch.close()
    assert watch.newest is None


def test_a_look_that_fails_is_not_the_last() -> None:
    class Failing(GaugeReader):
        num_reads = 0

        def read(self) -> Gauges:
            self.num_reads += 1
            if self.num_reads == 2:
                raise OSError("no")
            return super().read()

    reader = Failing(None)
    watch = GaugeWatch(lambda: reader, every_s=0.01)
    watch.start()
    wait_until(lambda: reader.num_reads > 3 and watch.newest is not None, "it was read again")
    watch.close()
