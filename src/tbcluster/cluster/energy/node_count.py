"""One node's joules: how many there were, and which of them went into serving. Pure."""

import math
from collections import deque
from dataclasses import dataclass

ESTIMATE = "estimate"
# Watts that were said once hold for so long.
MAX_GAP_S = 5.0
# Seconds without a result that a step which took longer than one look may have been computed in.
NUM_IDLE = 60


@dataclass(frozen=True, slots=True)
class NodeEnergy:
    """What a node says, or is taken to draw, at one moment.

    Attributes:
        joules: Its meter's own count; None without one.
        watts: What it draws; None where nobody knows.
        source: The meter's name, or `ESTIMATE`.
    """

    joules: float | None = None
    watts: float | None = None
    source: str = ""

    @property
    def is_estimate(self) -> bool:
        """Whether no meter has said it."""
        return self.source == ESTIMATE


@dataclass(frozen=True, slots=True)
class Drawn:
    """Of one node between two looks, in joules; `serving` is what went into serving."""

    joules: float
    serving: float
    is_estimate: bool


class NodeCount:
    """Adds up one node's joules.

    Attributes:
        joules: Since it was first seen, while it was known.
        source: Where the newest of them are from.
    """

    def __init__(self) -> None:
        self.joules = 0.0
        self.source = ""
        self.watts: float | None = None
        self._meter: float | None = None
        # Intervals, or what is left of them, that nothing was computed in: seconds and joules.
        self._idle: deque[tuple[float, float]] = deque(maxlen=NUM_IDLE)

    def miss(self) -> None:
        """It says nothing now: what its meter counts meanwhile is nobody's."""
        self._meter = self.watts = None
        self._idle.clear()

    def begin(self, said: NodeEnergy) -> None:
        """What it says at the first look."""
        self._meter, self.watts, self.source = _known(said.joules), _known(said.watts), said.source

    def add(self, said: NodeEnergy, seconds: float, active_s: float) -> Drawn | None:
        """What it drew in these seconds; None where that is not known.

        Args:
            active_s: In which steps were on their way. It is told when they come back: more of it
                than `seconds` reaches back into those before, in which nothing seemed to happen.
        """
        self.watts = _known(said.watts)
        joules = self._grown(said, seconds)
        if joules is None:
            self._idle.clear()
            return None
        self.joules += joules
        self.source = said.source
        share = min(1.0, active_s / seconds)
        serving = joules * share + self._reach_back(active_s - seconds)
        if share < 1:
            self._idle.append((seconds * (1 - share), joules * (1 - share)))
        return Drawn(joules, serving, said.is_estimate)

    def _grown(self, said: NodeEnergy, seconds: float) -> float | None:
        before, self._meter = self._meter, _known(said.joules)
        if self._meter is not None and before is not None:
            # One that fell was begun again, from zero.
            return self._meter - before if self._meter >= before else self._meter
        return None if self.watts is None else self.watts * min(seconds, MAX_GAP_S)

    def _reach_back(self, seconds: float) -> float:
        joules = 0.0
        while seconds > 0 and self._idle:
            idle_s, idle_joules = self._idle.pop()
            share = min(1.0, seconds / idle_s)
            joules += share * idle_joules
            seconds -= idle_s
            if share < 1:
                self._idle.append(((1 - share) * idle_s, (1 - share) * idle_joules))
        return joules


def _known(value: float | None) -> float | None:
    """Nodes are believed as far as what they say is a number."""
    return value if value is not None and math.isfinite(value) and value >= 0 else None
