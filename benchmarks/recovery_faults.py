"""What else may happen to one stream on one machine, for the recovery benchmark."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.recovery_rounds import Parts, Rounds, kill_worker
from tbcluster import Cluster
from tests.doubles.faults.places import ProxiedPlaces, WatchedPlaces

NUM_STAGES = 3
# Between the first two stages.
HOP = (0, 1)

Harm = Callable[[], float]


@contextmanager
def _one_killed(model: Path) -> Iterator[tuple[Cluster, Harm]]:
    with Cluster(model, stages=NUM_STAGES) as cluster:
        yield cluster, lambda: kill_worker(cluster, 1)


@contextmanager
def _all_killed(model: Path) -> Iterator[tuple[Cluster, Harm]]:
    with Cluster(model, stages=NUM_STAGES) as cluster:
        yield cluster, lambda: max(kill_worker(cluster, stage) for stage in range(NUM_STAGES))


@contextmanager
def _one_stopped(model: Path) -> Iterator[tuple[Cluster, Harm]]:
    with Cluster(model, stages=NUM_STAGES) as cluster:

        def stop() -> float:
            os.kill(cluster.status().stages[1].pid, signal.SIGSTOP)
            return time.time()

        yield cluster, stop


@contextmanager
def _message_lost(model: Path) -> Iterator[tuple[Cluster, Harm]]:
    places = WatchedPlaces()
    with Cluster(model, stages=NUM_STAGES, new_places=lambda _: places) as cluster:

        def lose() -> float:
            places.relays[HOP].lose()
            return time.time()

        yield cluster, lose


@contextmanager
def _bytes_corrupted(model: Path) -> Iterator[tuple[Cluster, Harm]]:
    places = ProxiedPlaces()
    with Cluster(model, stages=NUM_STAGES, new_places=lambda _: places) as cluster:

        def corrupt() -> float:
            places.proxies[HOP].corrupt()
            return time.time()

        yield cluster, corrupt


FAULTS = {
    "worker": ("worker killed", _one_killed),
    "all": ("all workers killed", _all_killed),
    "wedged": ("worker stopped", _one_stopped),
    "message": ("message lost between stages", _message_lost),
    "bytes": ("bytes corrupted between stages", _bytes_corrupted),
}


def rounds_of(fault: str, model: Path, num_rounds: int) -> list[Parts]:
    """Rounds of one of `FAULTS`."""
    _, scene = FAULTS[fault]
    with scene(model) as (cluster, harm):
        rounds = Rounds(cluster)
        return [rounds.run(harm) for _ in range(num_rounds)]
