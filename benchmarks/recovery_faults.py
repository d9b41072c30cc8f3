"""What else may happen to one stream on one machine, for the recovery benchmark."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.recovery_rounds import Parts, Rounds, kill_worker
from tbcluster import Cluster
from tests.doubles.faults.memory import flip_bits
from tests.doubles.faults.places import ProxiedPlaces, WatchedPlaces
from tests.doubles.waiting import wait_until

NUM_STAGES = 3
# Between the first two stages.
HOP = (0, 1)
# Whose bits flip.
NUM_VALUES = 16

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


@contextmanager
def _bits_flipped(model: Path) -> Iterator[tuple[Cluster, Harm]]:
    """Found when the stages are examined, which is done at once here."""
    with Cluster(model, stages=NUM_STAGES) as cluster:

        def is_known() -> bool:
            # The first two are what later ones are compared with.
            cluster.examine()
            return cluster.status().recoveries.num_parity_checks > 0

        wait_until(is_known, "the stages have been examined")

        def flip() -> float:
            victim = cluster.status().stages[1]
            tensor = f"model.layers.{victim.layers.start}.mlp.down_proj.weight"
            flip_bits(victim.pid, model, tensor, NUM_VALUES)
            cluster.examine()
            return time.time()

        yield cluster, flip


FAULTS = {
    "worker": ("worker killed", _one_killed),
    "all": ("all workers killed", _all_killed),
    "wedged": ("worker stopped", _one_stopped),
    "message": ("message lost between stages", _message_lost),
    "bytes": ("bytes corrupted between stages", _bytes_corrupted),
    "bits": ("bits flipped in weights", _bits_flipped),
}


def rounds_of(fault: str, model: Path, num_rounds: int) -> list[Parts]:
    """Rounds of one of `FAULTS`."""
    _, scene = FAULTS[fault]
    with scene(model) as (cluster, harm):
        rounds = Rounds(cluster)
        return [rounds.run(harm) for _ in range(num_rounds)]
