"""Small clusters whose workers and connections come to harm at the point that a test names."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.parity_check import MAX_PROMPT_TOKENS
from tbcluster.cluster.status import ClusterState
from tbcluster.wire.messages import Step, decode_step
from tests.chaos.streams import SHARED, Stream, Tokens, finished, submitted
from tests.doubles.faults.places import (
    COORDINATOR,
    Crossed,
    Event,
    Launched,
    ProxiedPlaces,
    Said,
    WatchedPlaces,
)
from tests.doubles.faults.signals import kill
from tests.doubles.processes import is_alive
from tests.doubles.waiting import wait_until

NUM_STAGES = 3
MIDDLE, LAST = 1, NUM_STAGES - 1
NUM_LOOKS = 12
TO_FIRST = (COORDINATOR, 0)

Condition = Callable[[Event], bool]
IsStep = Callable[[Step], bool]


class AnyScene:
    """A small cluster, and what its eight streams are told where nothing goes wrong.

    Attributes:
        killed: The workers that were killed since the last check.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.killed: list[int] = []
        self.expected: list[Tokens] = finished(submitted(cluster))

    def pid(self, stage: int) -> int:
        """Of the worker that the stage has now."""
        return self.cluster.status().stages[stage].pid

    def kill(self, *stages: int) -> None:
        """End these workers."""
        for pid in [self.pid(stage) for stage in stages]:
            self.kill_process(pid)

    def kill_process(self, pid: int) -> None:
        """End this one."""
        kill(pid)
        self.killed.append(pid)

    def is_still(self, streams: list[Stream]) -> Callable[[], bool]:
        """Whether no token has come for a while, at each look."""
        looks: deque[int] = deque(maxlen=NUM_LOOKS)

        def look() -> bool:
            looks.append(sum(len(stream.outputs) for stream in streams))
            return len(looks) == NUM_LOOKS and looks[0] == looks[-1]

        return look

    def await_ready(self) -> None:
        """Wait until all stages are up again."""
        wait_until(lambda: self.cluster.status().state is ClusterState.READY, "it is ready again")

    def check(self, streams: list[Stream]) -> None:
        """The streams were told what they would have been, and nothing is left of what died."""
        assert finished(streams) == self.expected
        self.check_nothing_left()

    def check_nothing_left(self) -> None:
        """No request is open, and every stage has one worker, which lives."""
        self.await_ready()
        wait_until(lambda: self.cluster.status().num_requests == 0, "no request is open")
        wait_until(lambda: not any(is_alive(pid) for pid in self.killed), "the killed are gone")
        assert all(is_alive(stage.pid) for stage in self.cluster.status().stages)
        self.killed.clear()


class Scene(AnyScene):
    """Three stages; all that is said and all that crosses can be waited for."""

    def __init__(self, cluster: Cluster, places: WatchedPlaces) -> None:
        super().__init__(cluster)
        self.places = places

    def check_nothing_left(self) -> None:
        """Nor an event that a test waited for."""
        super().check_nothing_left()
        assert not self.places.num_awaited, "something that was to happen never did"

    def is_of_next_epoch(self) -> IsStep:
        """Holds for steps that are sent after the next loss: the parity probe's are the first."""
        newest = decode_step(list(self.places.relays[TO_FIRST].recorded[-1])).epoch
        return lambda step: step.epoch > newest

    def kill_when(self, is_it: Condition, victim: int) -> threading.Event:
        """End this stage's worker as soon as the event comes; what is given is set then."""
        has_come = threading.Event()

        def act(event: Event) -> None:
            # One that was just launched is not in the status yet.
            is_its_own = not isinstance(event, Crossed) and event.stage == victim
            self.kill_process(event.pid if is_its_own else self.pid(victim))
            has_come.set()

        self.places.once(is_it, act)
        return has_come


class ProxiedScene(AnyScene):
    """Two stages, with sealed connections and a TCP proxy on each."""

    def __init__(self, cluster: Cluster, places: ProxiedPlaces) -> None:
        super().__init__(cluster)
        self.places = places


@contextmanager
def watched_scene(model: Path) -> Iterator[Scene]:
    """The scene, with its undisturbed run made."""
    places = WatchedPlaces()
    with Cluster(model, stages=NUM_STAGES, new_places=lambda _: places) as cluster:
        yield Scene(cluster, places)
        pids = [stage.pid for stage in cluster.status().stages]
    assert not any(is_alive(pid) for pid in pids), "a worker was left"


@contextmanager
def proxied_scene(model: Path) -> Iterator[ProxiedScene]:
    """The same for the proxied one."""
    places = ProxiedPlaces()
    with Cluster(model, stages=2, new_places=lambda _: places) as cluster:
        yield ProxiedScene(cluster, places)
        pids = [stage.pid for stage in cluster.status().stages]
    assert not any(is_alive(pid) for pid in pids), "a worker was left"


# What can be waited for


def launched(stage: int) -> Condition:
    """A new process for this stage, before it has read its spec."""
    return lambda event: isinstance(event, Launched) and event.stage == stage


def said(stage: int, kind: type, is_it: Callable[..., bool] = lambda _: True) -> Condition:
    """A report of this kind from the worker of this stage."""
    return lambda event: (
        isinstance(event, Said)
        and event.stage == stage
        and isinstance(event.report, kind)
        and is_it(event.report)
    )


def crossed(hop: tuple[int, int], is_it: IsStep) -> Condition:
    """A step that goes this way."""
    return lambda event: (
        isinstance(event, Crossed)
        and event.hop == hop
        and isinstance(event.message, Step)
        and is_it(event.message)
    )


class Counted:
    """Holds at the n-th event that another condition holds for."""

    def __init__(self, is_it: Condition, number: int) -> None:
        self._is_it = is_it
        self._num_left = number

    def __call__(self, event: Event) -> bool:
        self._num_left -= self._is_it(event)
        return self._num_left == 0


def both(one: IsStep, other: IsStep) -> IsStep:
    """Steps that both hold for."""
    return lambda step: one(step) and other(step)


def is_chunk(step: Step) -> bool:
    """Part of a prompt that is longer than the parity probe's."""
    chunk = step.micro_batch
    return chunk is not None and not chunk.samples and len(chunk.tokens) > MAX_PROMPT_TOKENS


def is_long_chunk(step: Step) -> bool:
    """Part of the long prompt."""
    return is_chunk(step) and step.micro_batch.tokens[0] != SHARED[0]


def is_decode(step: Step) -> bool:
    """A step of a lane of several."""
    return step.micro_batch is not None and len(step.micro_batch.samples) > 1


def has_rules(step: Step) -> bool:
    """A decode step with a row whose logits are changed by rules."""
    samples = step.micro_batch.samples if step.micro_batch is not None else ()
    return any(sample.rules_id is not None for sample in samples)
