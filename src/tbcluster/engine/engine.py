"""The engine as other threads see it: a queue of what they ask for, and a thread that does it."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial

from tbcluster.core import Request, TokenId
from tbcluster.engine.detokenizer import Detokenizer
from tbcluster.engine.emission import tell
from tbcluster.engine.examiner import OnExamined
from tbcluster.engine.limits import shortage, validate
from tbcluster.engine.open_requests import OpenRequests
from tbcluster.engine.sequence import Listener, Sequence
from tbcluster.engine.statistics import EngineStatistics
from tbcluster.engine.step_log import ERROR
from tbcluster.engine.token_loop import TokenLoop
from tbcluster.engine.works import Works
from tbcluster.errors import ClusterClosedError, StageError, TbclusterError
from tbcluster.tracing.records import EngineTrace

__all__ = ["Engine", "Works"]

logger = logging.getLogger(__name__)


class Engine:
    """Turns requests into outputs by way of the pipeline. One thread runs it; all but `run` and
    `step` may be called from any other.

    Args:
        works: What it drives, until `begin_epoch` gives it another.
        on_failure: Called, in the engine's thread, when its loop has failed for good.

    Attributes:
        has_ended: Set when `run` has, after which nothing is done any more.
    """

    def __init__(
        self,
        works: Works,
        new_detokenizer: Callable[[], Detokenizer],
        on_failure: Callable[[TbclusterError], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = OpenRequests()
        self._loop = TokenLoop(works, self._requests, new_detokenizer, clock)
        self._on_failure = on_failure
        self._clock = clock
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._is_stopped = False
        self.has_ended = threading.Event()

    # Requests

    def submit(self, request: Request, listener: Listener, *, while_held: bool = False) -> None:
        """Queue a request; `listener` is told of every token, in the engine's thread.

        Args:
            while_held: Run it even though ordinary requests are held back and their queue is full
                (the parity probe). It ends with StageLostError at the next pause.

        Raises:
            RequestError: A field is out of range (named by `param`).
            QueueFullError: Too many requests are open already.
            TbclusterError: What `close` or `starve` was called with.
        """
        limits = self._loop.works.limits
        validate(request, limits)
        # Posted under the lock that is taken to refuse: whatever gets past it is answered.
        enqueue = partial(self._post, partial(self._loop.enqueue, request, listener, while_held))
        if while_held:
            self._requests.enter_probe(enqueue)
        else:
            self._requests.enter(limits.max_running + limits.max_waiting, enqueue)

    def cancel(self, request_id: str) -> None:
        """End a request without telling its listener; unknown ids are ignored, unless the request
        moves in later (see `adopt`)."""
        self._post(partial(self._loop.cancel, request_id))

    def surrender(
        self,
        take: Callable[[list[Sequence]], None],
        fits: Callable[[Request], bool] = lambda _: True,
    ) -> None:
        """Give away the requests that wait, for another engine to `adopt`. After `pause` these are
        all of them but the probe. `take` is called in the engine's thread.

        Args:
            fits: Whether a request could be finished there; the others stay.
        """
        self._post(partial(self._loop.surrender, take, fits))

    def has_room(self, request: Request) -> bool:
        """Whether a request of this length can be finished here."""
        return shortage(len(request.prompt) + request.max_tokens, self._loop.works.limits) is None

    def adopt(self, sequences: list[Sequence]) -> None:
        """Go on with what another engine of the same model has surrendered. Where none are taken
        any more, they end with the reason."""
        move_in = partial(self._post, partial(self._loop.adopt, sequences))
        refusal = self._requests.move_in(len(sequences), move_in)
        if refusal is not None:
            for sequence in sequences:
                self._loop.log.turned_away(sequence, ERROR)
                tell(sequence.listener, refusal)

    def examine(self, tokens: tuple[TokenId, ...], on_result: OnExamined) -> None:
        """See what every stage makes of these tokens, as one step on a cache of its own, held or
        not. `on_result` gets the examination, or why there is none: StageLostError if the stages
        were lost meanwhile."""
        self._post(partial(self._examine, tokens, on_result))

    # Stages

    def open(self, on_first_token: Callable[[], None] | None = None) -> None:
        """Start requests as they come.

        Args:
            on_first_token: Called once, in the engine's thread, when the next token has come.
        """
        self._post(partial(self._open, on_first_token))

    def pause(self) -> None:
        """The stages cannot go on: what runs starts over, and waits with all others until `open`.
        Nobody is told, and no token comes twice; only probes and examinations end, with
        StageLostError."""
        self._post(self._loop.pause)

    def begin_epoch(
        self,
        epoch: int,
        works: Works | None = None,
        on_begun: Callable[[], None] = lambda: None,
    ) -> None:
        """As `pause`; then steps carry this number, and stages that see it drop all their caches.

        Args:
            works: What to drive from now on. A sequence that is too long for its limits, or grows
                so long, ends with StarvedError.
            on_begun: Called in the engine's thread: what it drove before is not used any more.
        """
        self._post(partial(self._loop.begin_epoch, epoch, works))
        self._post(on_begun)

    def starve(self, error: TbclusterError) -> None:
        """End every open request with `error`, and refuse others with it, until `open`."""
        self._post(partial(self._starve, error))

    def close(self, error: TbclusterError) -> None:
        """End every request, running, waiting or yet to come, with `error`."""
        self._post(partial(self._close, error))

    def stop(self) -> None:
        """Leave `run`; open requests end with ClusterClosedError."""
        self._post(self._stop)

    # Facts

    def reset_statistics(self) -> None:
        """Count from zero again."""
        self._post(self._loop.reset_statistics)

    def num_known(self, request: Request) -> int:
        """How many of a request's tokens a known prefix would spare now."""
        return self._loop.works.caches.num_known(request.prompt) if request.cache_prompt else 0

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return self._requests.num_open

    @property
    def statistics(self) -> EngineStatistics:
        """What was counted since the last reset; a number or two may be of the turn before."""
        loop = self._loop
        caches, memory = loop.works.caches, loop.works.caches.memory
        queues = (loop.num_running, loop.num_waiting)
        counters = loop.counters
        way_us = loop.log.wire_us(counters.num_stages)
        return counters.snapshot(
            len(caches.prefixes), memory.used, memory.budgets, *queues, way_us=way_us
        )

    def trace(self, request_id: str, *, with_steps: bool = True) -> EngineTrace | None:
        """What is known of a request and its steps; None where it never came here, or long ago."""
        return self._loop.log.trace(request_id, with_steps=with_steps)

    # The engine's thread

    def run(self) -> None:
        """Loop until `stop`."""
        try:
            self._run()
        finally:
            self.has_ended.set()

    def _run(self) -> None:
        try:
            while not self._is_stopped:
                self.step()
        except Exception as error:  # the top loop: nothing may hang because it ended
            logger.exception("the engine's loop failed")
            self._is_stopped = True
            failure = StageError(f"the engine failed: {type(error).__name__}: {error}")
            self._close(failure)
            self._on_failure(failure)
        self._take_inbox()

    def step(self, timeout_s: float | None = None) -> None:
        """One turn, beginning with what other threads have asked for."""
        begun_at = self._clock()
        self._take_inbox()
        if not self._is_stopped:
            self._loop.turn(begun_at, timeout_s)

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.put(action)
        # Works are exchanged by an action, and all that are there are taken before the engine waits
        # again: should these be the old ones, this action was among those.
        self._loop.works.pipeline.wake()

    def _take_inbox(self) -> None:
        while True:
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                return
            action()

    def _open(self, on_first_token: Callable[[], None] | None) -> None:
        self._requests.accept()
        self._loop.on_first_token = on_first_token
        self._loop.is_held = False

    def _examine(self, tokens: tuple[TokenId, ...], on_result: OnExamined) -> None:
        if (refusal := self._requests.refusal(is_probe=True)) is not None:
            on_result(refusal)
        else:
            self._loop.examine(tokens, on_result)

    def _starve(self, error: TbclusterError) -> None:
        self._requests.refuse(error)
        self._loop.end_all(error)

    def _close(self, error: TbclusterError) -> None:
        self._requests.close(error)
        self._loop.end_all(error)

    def _stop(self) -> None:
        self._is_stopped = True
        self._close(ClusterClosedError("the cluster was closed"))
