"""A stage worker's signs of life, said by a thread that does nothing else. No MLX here: they begin
before it is imported."""

import threading
import time
from collections.abc import Callable

from tbcluster.wire.control import Beat, Report

BEAT_S = 0.5

Clock = Callable[[], float]


class Work:
    """What the compute thread is at: written there, read by the thread that beats.

    MLX computes one step after the other, so the time of a step begins when the one before it is
    done, though its graph may have been built before that.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._num_steps = 0
        self._since: float | None = None

    def takes(self) -> None:
        """A step was received."""
        if self._since is None:
            self._since = self._clock()

    def turns(self, *, finished: bool, follows: bool) -> None:
        """A turn of the worker's loop is over: whether a step was finished, and whether another one
        is in hand."""
        self._num_steps += finished
        if not follows:
            self._since = None
        elif finished:
            self._since = self._clock()

    def beat(self) -> Beat:
        """How it stands now."""
        # Steps first: one that is done in between then makes the time too short, never too long.
        num_steps, since = self._num_steps, self._since
        return Beat(num_steps, 0.0 if since is None else max(0.0, self._clock() - since))


def start_beating(report: Callable[[Report], None]) -> Work:
    """Say a `Beat` every `BEAT_S` for as long as the process lives."""
    work = Work()

    def run() -> None:
        try:
            while True:
                report(work.beat())
                time.sleep(BEAT_S)
        except OSError:
            return  # nobody listens: the parent is gone, and this process is about to end

    threading.Thread(target=run, name="beats", daemon=True).start()
    return work
