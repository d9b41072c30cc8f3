"""What can go wrong in the soak, how often, and how it is brought about."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.chaos.ground import Ground, stages_of
from tests.doubles.faults.rack import NODES, THREE, TWO, FaultRack
from tests.doubles.faults.signals import kill, wake, wedge

# For how long a node is cut off: some blips that no lease notices, some that it does.
BLIP_S, CUT_S = (0.2, 1.5), (3.5, 8.0)
HESITATION_S = (0.2, 2.0)
SLOW_S, SLOW_MBIT = 3.0, 2.0
# A worker that is started again is there after so long, or never.
RESTART_S = 10.0
# Steps of all who wait here.
LOOK_S = 0.02
# Who lives long is killed in this part of the soak: in the rest it grows old, or no leak would
# show.
EARLY = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault.

    Attributes:
        weight: How often it is drawn, beside the others.
        perform: Brings it about; gives what was hit, or None if there was nothing to hit.
        breaks_streams: Whether HTTP connections end with it.
        is_early: Whether it is not drawn after the soak's `EARLY` part.
    """

    name: str
    weight: int
    perform: Callable[[], str | None]
    breaks_streams: bool = False
    is_early: bool = False


class Faults:
    """Every fault that this ground has, drawn from one seed."""

    def __init__(self, ground: Ground, seed: int, is_over: threading.Event) -> None:
        self._ground = ground
        self._random = random.Random(seed)
        self._is_over = is_over
        self._all = [
            Fault("worker killed", 30, lambda: self._kill(1)),
            Fault("two workers killed at once", 8, lambda: self._kill(2)),
            Fault("all workers killed at once", 4, lambda: self._kill(len(self._stages()))),
            Fault("worker killed again as it came back", 8, self._kill_again),
            Fault("worker wedged for good", 6, self._wedge),
            Fault("worker stopped for a moment", 8, self._hesitate),
            Fault(
                "coordinator killed",
                8,
                self._kill_coordinator,
                breaks_streams=True,
                is_early=True,
            ),
        ]
        if isinstance(ground, FaultRack):
            rack = ground
            self._all += [
                Fault("agent killed", 16, lambda: self._kill_agent(rack), is_early=True),
                Fault("node cut off for a moment", 6, lambda: self._cut(rack, BLIP_S)),
                Fault("node cut off", 8, lambda: self._cut(rack, CUT_S)),
                Fault("node cut off and a worker killed", 4, lambda: self._cut_and_kill(rack)),
                Fault("link slow for a moment", 4, lambda: self._slow_down(rack)),
            ]

    def draw(self, progress: float) -> Fault:
        """The next one, after this share of the soak."""
        drawn = [fault for fault in self._all if progress < EARLY or not fault.is_early]
        return self._random.choices(drawn, [fault.weight for fault in drawn])[0]

    def jitter(self, most_s: float) -> float:
        """Some time up to `most_s`."""
        return self._random.uniform(0, most_s)

    def _stages(self) -> list[int]:
        return [stage["pid"] for stage in stages_of(self._ground)]

    def _kill(self, number: int) -> str | None:
        stages = stages_of(self._ground)
        drawn = self._random.sample(stages, min(number, len(stages)))
        victims = [stage for stage in drawn if kill(stage["pid"])]
        return ", ".join(_words(stage) for stage in victims) or None

    def _kill_again(self) -> str | None:
        stages = stages_of(self._ground)
        if not stages:
            return None
        victim = self._random.choice(stages)
        if not kill(victim["pid"]):
            return None
        give_up = time.monotonic() + RESTART_S
        while time.monotonic() < give_up and not self._is_over.is_set():
            now = [stage for stage in stages_of(self._ground) if stage["index"] == victim["index"]]
            if now and now[0]["pid"] != victim["pid"]:
                # At some point between its start and its first steps.
                self._wait(self._random.uniform(0, 1.5))
                how_often = "twice" if kill(now[0]["pid"]) else "once: it was gone again by itself"
                return f"{_words(victim)}, {how_often}"
            self._wait(LOOK_S)
        return f"{_words(victim)}, once: it did not come back in {RESTART_S:g} s"

    def _wedge(self) -> str | None:
        stages = stages_of(self._ground)
        if not stages:
            return None
        victim = self._random.choice(stages)
        return _words(victim) if wedge(victim["pid"]) else None

    def _hesitate(self) -> str | None:
        stages = stages_of(self._ground)
        if not stages:
            return None
        victim = self._random.choice(stages)
        seconds = self._random.uniform(*HESITATION_S)
        if not wedge(victim["pid"]):
            return None
        self._wait(seconds)
        wake(victim["pid"])
        return f"{_words(victim)}, {seconds:.1f} s"

    def _kill_coordinator(self) -> str:
        self._ground.coordinator.kill()
        return "serve"

    def _kill_agent(self, rack: FaultRack) -> str:
        node = self._random.choice(NODES)
        rack.agents[node].kill()
        return node

    def _cut(self, rack: FaultRack, seconds: tuple[float, float]) -> str:
        node, length = self._random.choice((TWO, THREE)), self._random.uniform(*seconds)
        rack.cut(node)
        self._wait(length)
        rack.mend(node)
        return f"{node}, {length:.1f} s"

    def _cut_and_kill(self, rack: FaultRack) -> str:
        node, length = self._random.choice((TWO, THREE)), self._random.uniform(*CUT_S)
        rack.cut(node)
        self._wait(length / 2)
        killed = self._kill(1)
        self._wait(length / 2)
        rack.mend(node)
        return f"{node}, {length:.1f} s; {killed or 'nobody'}"

    def _slow_down(self, rack: FaultRack) -> str:
        node = self._random.choice((TWO, THREE))
        interface = rack.ends[node].interface
        rack.network.shape(node, interface, SLOW_MBIT)
        self._wait(SLOW_S)
        rack.network.unshape(node, interface)
        return f"{node}, {SLOW_MBIT:g} Mbit/s for {SLOW_S:g} s"

    def _wait(self, seconds: float) -> None:
        self._is_over.wait(seconds)


def _words(stage: dict[str, object]) -> str:
    node = f" on {stage['node']}" if stage["node"] else ""
    return f"stage {stage['index']}{node}"
