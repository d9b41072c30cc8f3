"""Meters that fall silent and are opened again."""

import logging

import pytest

from tbcluster.hardware.power.lasting import SILENT_S, LastingMeter
from tbcluster.hardware.power.meter import Reading
from tests.hardware.power.test_meter import Clock, Said


class Broken(Said):
    def read(self) -> Reading:
        raise RuntimeError("IOReport is gone")


def test_a_meter_that_fell_silent_is_opened_again_after_a_while() -> None:
    clock = Clock()
    first, second = Said("macmon", Reading(5.0, 2.0)), Said("macmon", Reading(0.0, 3.0))
    meter = LastingMeter(first, lambda: second, clock)
    assert meter.read() == Reading(5.0, 2.0)
    first.reading = Reading()
    clock.now += SILENT_S - 1
    assert meter.read() == Reading()
    assert not first.is_closed
    clock.now += 1
    assert meter.read() == Reading()
    assert first.is_closed
    assert meter.read() == Reading(0.0, 3.0)
    meter.close()
    assert second.is_closed


def test_a_meter_that_cannot_be_opened_is_tried_again_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    tries: list[float] = []
    meter = LastingMeter(Said("rapl", Reading()), lambda: tries.append(clock.now), clock)
    for _ in range(100):
        clock.now += 1
        assert meter.read() == Reading()
    assert len(tries) == 3
    assert len(caplog.records) == 1
    meter.close()


def test_a_meter_that_raises_says_nothing_until_it_is_opened_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    meter = LastingMeter(Broken("zeus", Reading()), lambda: Said("zeus", Reading(1.0)), clock)
    assert meter.read() == Reading()
    clock.now += SILENT_S
    assert meter.read() == Reading()
    assert meter.read() == Reading(1.0)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "IOReport is gone" in told[0]
    assert told[1] == "zeus says again what this machine draws"
