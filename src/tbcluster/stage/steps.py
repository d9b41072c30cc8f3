"""The loop of a stage worker: receive, compute, send."""

import logging
import time
from collections.abc import Callable

from tbcluster.errors import WireError
from tbcluster.stage.beats import Work
from tbcluster.stage.executor import BegunStep, StageExecutor
from tbcluster.stage.orders import Outbound
from tbcluster.transport.channel import Receiver
from tbcluster.wire.messages import Step, decode_step

logger = logging.getLogger(__name__)

MAX_LOGGED_DROPS = 100


def run_steps(
    executor: StageExecutor,
    receiver: Receiver,
    outbound: Outbound,
    index: int,
    work: Work,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Receive, compute, send, until the worker has another place: what is in hand then is dropped.
    The graph of a step that is there already is built while MLX still computes the one before it;
    it is started only once that one is sent on, because handing MLX a graph can take until most of
    it is computed.

    Args:
        work: Is told what this thread is at.
        is_over: Whether there is another place. Whoever makes it so wakes the receiver.
    """
    steps = StepReader(receiver, executor, index)
    begun: BegunStep | None = None
    while not is_over():
        step = steps.next(waits=begun is None)
        if step is not None:
            work.takes()
        following = executor.begin(step, is_alone=begun is None) if step is not None else None
        if begun is not None:
            output = executor.finish(begun)
            if is_over():
                break
            outbound.send(output)
        work.turns(finished=begun is not None, follows=following is not None)
        if following is not None:
            executor.start(following)
        begun = following
    work.turns(finished=False, follows=False)


class StepReader:
    """Takes steps from a receiver; what does not parse is dropped, counted and logged."""

    def __init__(self, receiver: Receiver, executor: StageExecutor, index: int) -> None:
        self._receiver = receiver
        self._executor = executor
        self._index = index
        self._num_dropped = 0

    def next(self, *, waits: bool) -> Step | None:
        """The next step; None when there is none now, or it did not parse."""
        frames = self._receiver.receive(0)
        if waits:
            waited_s = 0.0
            if frames is None:
                started = time.perf_counter()
                frames = self._receiver.receive(None)
                waited_s = time.perf_counter() - started
            self._executor.waited(waited_s)
        if frames is None:
            return None
        try:
            return decode_step(frames)
        except WireError as error:
            self._num_dropped += 1
            if self._num_dropped <= MAX_LOGGED_DROPS:
                logger.warning(
                    "stage %d dropped message %d: %s", self._index, self._num_dropped, error
                )
            return None
