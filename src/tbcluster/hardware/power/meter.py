"""What all meters have in common, and how watts become joules."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# A meter that says nothing for so long says nothing of the time between.
MAX_GAP_S = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What a meter says.

    Attributes:
        joules: Counted since it was opened, from zero; never falls while it is open. None where
            nothing can be read any more.
        watts: Now; None where that is not known, or not yet.
        temperature_c: Of the hottest part that the meter sees.
    """

    joules: float | None = None
    watts: float | None = None
    temperature_c: float | None = None


class Meter(Protocol):
    """Something that counts joules. It is read by one thread, about once a second."""

    @property
    def source(self) -> str:
        """Its name: "zeus", "macmon", "rapl" or "nvml"."""
        ...

    def read(self) -> Reading:
        """What it says now; never raises."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


class Pace:
    """Watts from a count of joules: the mean between two looks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._before: tuple[float, float] | None = None
        self._watts: float | None = None

    def watts(self, joules: float) -> float | None:
        """The mean since the last look; None at the first."""
        now, before = self._clock(), self._before
        if before is not None and now <= before[0]:
            return self._watts
        if before is not None:
            self._watts = (joules - before[1]) / (now - before[0])
        self._before = now, joules
        return self._watts


class WattsCount:
    """Joules from watts that come now and then: each holds until the next one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._joules = 0.0
        self._newest: tuple[float, float] | None = None

    def add(self, watts: float) -> None:
        """A meter said so; what is no number is passed over."""
        if not math.isfinite(watts) or watts < 0:
            return
        now = self._clock()
        if self._newest is not None:
            self._joules += self._newest[1] * min(now - self._newest[0], MAX_GAP_S)
        self._newest = now, watts

    def reading(self, temperature_c: float | None = None) -> Reading:
        """What was counted; nothing before the first watts, or when they stopped coming."""
        if self._newest is None:
            return Reading()
        at, watts = self._newest
        age_s = self._clock() - at
        if age_s > MAX_GAP_S:
            return Reading()
        return Reading(self._joules + watts * age_s, watts, temperature_c)


class Together:
    """Several meters of different parts of one machine: what they say, added up."""

    def __init__(self, meters: tuple[Meter, ...]) -> None:
        self._meters = meters

    @property
    def source(self) -> str:
        """Their names."""
        return "+".join(meter.source for meter in self._meters)

    def read(self) -> Reading:
        """The sum; nothing while one of them says nothing."""
        readings = [meter.read() for meter in self._meters]
        joules = [one.joules for one in readings if one.joules is not None]
        watts = [one.watts for one in readings if one.watts is not None]
        return Reading(
            sum(joules) if len(joules) == len(readings) else None,
            sum(watts) if len(watts) == len(readings) else None,
            max(
                (one.temperature_c for one in readings if one.temperature_c is not None),
                default=None,
            ),
        )

    def close(self) -> None:
        """Close all of them."""
        for meter in self._meters:
            meter.close()
