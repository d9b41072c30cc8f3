"""What a stage does with a step. MLX, no sockets: a step in, a step or a result out.

A step is begun (its graph is built), started (handed to MLX, which computes in a thread of its own)
and finished (its output is waited for), so that the next step can be begun meanwhile.
"""

import logging
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import TypeVar

import mlx.core as mx

from tbcluster.core import MicroBatch, Sample, SampledToken, VisitTiming
from tbcluster.errors import StageError, TbclusterError
from tbcluster.model.arrays import from_boundary, to_boundary
from tbcluster.model.caches import Cache, state_arrays
from tbcluster.model.logit_rules import RowRules
from tbcluster.model.pooling import PendingVector, pool
from tbcluster.model.sampling import PendingSamples, sample_tokens
from tbcluster.model.slicing import HiddenStates, StageModel
from tbcluster.stage.cache_store import CacheStore
from tbcluster.stage.rules_store import RulesStore
from tbcluster.wire.messages import Boundary, Result, Step
from tbcluster.wire.operations import (
    CacheOperation,
    DropCache,
    DropRules,
    JoinLane,
    KeepRows,
    NewRules,
)

logger = logging.getLogger(__name__)

# As often as mlx-lm: MLX keeps freed buffers, and growing caches leave ever new sizes behind.
TOKENS_BETWEEN_CLEARS = 2048
STEPS_BETWEEN_CLEARS = 256

# Of dropped steps; more would only fill the disk.
MAX_LOGGED_DROPS = 100
DIGEST_BYTES = 8

ON_LANES = (JoinLane, KeepRows)

T = TypeVar("T")
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RuledLogits:
    """Logits that are sampled once MLX has them in hand: until then their rows' grammars have
    time."""

    logits: mx.array
    samples: tuple[Sample, ...]


# What a step waits for.
Output = HiddenStates | PendingSamples | RuledLogits | PendingVector | mx.array | None
# What goes on from here: hidden states, sampled tokens, or a pooled chunk's vector.
Sent = tuple[Boundary | None, tuple[SampledToken, ...], bytes | None]
NOTHING: Sent = None, (), None


@dataclass(slots=True)
class BegunStep:
    """A step whose graph is built: `output` is what to wait for, `cache` what it changes, `rules`
    those of each row where any has some."""

    step: Step
    output: Output
    cache: list[Cache]
    error: str | None
    rules: list[RowRules | None] = field(default_factory=list)


class StageExecutor:
    """Owns a stage's caches and runs its layers.

    Args:
        epoch: Steps of earlier epochs are dropped. A later one clears all caches and takes over.
        rules: The last stage's logit rules; None on the others.

    Attributes:
        num_dropped: Steps that were not executed: of past epochs, replayed, or overtaken by others.
    """

    def __init__(
        self,
        model: StageModel,
        caches: CacheStore,
        index: int,
        num_stages: int,
        epoch: int,
        clock: Clock = time.perf_counter,
        rules: RulesStore | None = None,
    ) -> None:
        self._model = model
        self._caches = caches
        self._rules = rules
        self._index = index
        self._is_last = index == num_stages - 1
        self._epoch = epoch
        # Of each visit, since steps arrive there in their order.
        self._newest_ids: dict[int, int] = {}
        self.num_dropped = 0
        self._clock = clock
        self._finished_at = clock()
        self._waited_s = 0.0
        # When a step came to a stage that had none in hand; None where it was busy.
        self._came_at: float | None = None
        self._num_steps = 0
        self._num_tokens = 0

    @property
    def num_caches(self) -> int:
        return self._caches.num_caches

    def waited(self, seconds: float) -> None:
        """The stage had nothing to do for so long, and now it has."""
        self._waited_s += seconds
        self._came_at = self._clock()

    def run(self, step: Step) -> Step | Result | None:
        """Begin, start and finish a step; None for one that is dropped."""
        begun = self.begin(step)
        if begun is None:
            return None
        self.start(begun)
        return self.finish(begun)

    def begin(self, step: Step, *, is_alone: bool = True) -> BegunStep | None:
        """Apply the step's cache operations and build its graph; None for a step that is not newer
        than all before it, which would be executed twice or too late.

        Args:
            is_alone: MLX computes nothing now, so it may start with the first layer at once.
        """
        if not self._is_next(step):
            return None
        failure = self._apply_operations(step) if step.visit == 0 else None
        begun = BegunStep(step, None, [], step.error or failure)
        batch = step.micro_batch
        if begun.error is None and batch is not None:
            begun.output, begun.error = self._guarded(
                step, lambda: self._forward(begun, batch, is_alone)
            )
        self._drop_if_failed(begun)
        return begun

    def start(self, begun: BegunStep) -> None:
        """Let MLX compute. No reference to the caches' arrays is kept: the next step could not
        write in place then."""
        if begun.error is None and begun.output is not None:
            _, begun.error = self._guarded(begun.step, lambda: _start(begun))
            self._drop_if_failed(begun)

    def finish(self, begun: BegunStep) -> Step | Result:
        """Wait for a step's output and return what to send on."""
        step = begun.step
        sent: Sent | None = None
        if begun.error is None:
            sent, begun.error = self._guarded(step, lambda: _wait_for(begun.output))
            self._drop_if_failed(begun)
        boundary, sampled, vector = sent or NOTHING
        _advance(begun.rules, sampled)
        error = begun.error
        self._clear_now_and_then(step.micro_batch)
        timings, digests = (*step.timings, self._timing()), step.digests
        if step.micro_batch is not None and step.micro_batch.is_examined:
            digests = (*digests, _digest(boundary, sampled))
        is_over = error or step.micro_batch is None or step.visit == self._num_visits - 1
        if self._is_last and is_over:
            return Result(step.epoch, step.step_id, sampled, error, timings, vector, digests)
        visit = step.visit + self._is_last
        return replace(
            step, boundary=boundary, error=error, timings=timings, visit=visit, digests=digests
        )

    @property
    def _num_visits(self) -> int:
        return len(self._model.segments)

    def _is_next(self, step: Step) -> bool:
        """Whether a step is the newest so far; the first of a new epoch clears everything."""
        if step.epoch > self._epoch:
            self._caches.clear()
            if self._rules is not None:
                self._rules.clear()
            self._epoch = step.epoch
            self._newest_ids.clear()
        is_new = step.step_id > self._newest_ids.get(step.visit, -1)
        if step.epoch == self._epoch and is_new:
            # Not of every number that a message may hold.
            if 0 <= step.visit < self._num_visits:
                self._newest_ids[step.visit] = step.step_id
            return True
        self.num_dropped += 1
        if step.epoch == self._epoch and self.num_dropped <= MAX_LOGGED_DROPS:
            logger.warning(
                "stage %d dropped step %d, which came twice or too late", self._index, step.step_id
            )
        return False

    def _guarded(self, step: Step, action: Callable[[], T]) -> tuple[T | None, str | None]:
        try:
            return action(), None
        except TbclusterError as error:
            return None, f"stage {self._index}: {error}"
        except Exception as error:  # whatever a bad step makes a model raise ends that request
            logger.exception("stage %d failed in step %d", self._index, step.step_id)
            return None, f"stage {self._index} failed: {type(error).__name__}: {error}"

    def _apply_operations(self, step: Step) -> str | None:
        """All of them, even when one fails, since the log goes on; the first failure is told.

        Only a lane that is not what it should be is a reason not to compute a micro-batch: whoever
        needs a cache that could not be made or loaded finds it missing."""
        failure = None
        for operation in step.operations:
            _, error = self._guarded(step, partial(self._apply, operation))
            if error is None or step.micro_batch is None or isinstance(operation, ON_LANES):
                failure = failure or error
            else:
                logger.warning("%s", error)
        return failure

    def _apply(self, operation: CacheOperation) -> None:
        if not isinstance(operation, (NewRules, DropRules)):
            self._caches.apply(operation)
        elif self._rules is not None:
            self._rules.apply(operation)

    def _forward(self, begun: BegunStep, micro_batch: MicroBatch, is_alone: bool) -> Output:
        step = begun.step
        begun.cache = cache = self._caches.get(micro_batch.cache_id)
        if not 0 <= step.visit < self._num_visits:
            raise StageError(f"no visit {step.visit} on this stage")
        incoming = from_boundary(step.boundary) if step.boundary is not None else None
        tokens = mx.array(micro_batch.tokens, dtype=mx.int32).reshape(micro_batch.num_rows, -1)
        pooling = micro_batch.pooling if self._is_last else None
        result = self._model.forward(
            tokens,
            cache,
            incoming,
            step.visit,
            starts_early=is_alone,
            stops_at_head=pooling is not None,
        )
        if isinstance(result, HiddenStates):
            return result
        if pooling is not None:
            return PendingVector(pool(result, pooling))
        if micro_batch.samples:
            begun.rules = self._rules.of(micro_batch.samples) if self._rules is not None else []
            if begun.rules:
                return RuledLogits(result, micro_batch.samples)
            return sample_tokens(result, micro_batch.samples)
        # Nothing of a prompt chunk leaves the last stage, which is spared its head.
        done: mx.array = mx.depends(mx.zeros(()), _states(cache))
        return done

    def _drop_if_failed(self, begun: BegunStep) -> None:
        """Its cache may lack the step's tokens now: nothing must be made of it."""
        if begun.error is not None and begun.step.micro_batch is not None:
            self._caches.apply(DropCache(begun.step.micro_batch.cache_id))

    def _timing(self) -> VisitTiming:
        now = self._clock()
        waited_s, self._waited_s = self._waited_s, 0.0
        busy_s = max(0.0, now - self._finished_at - waited_s)
        began_at = self._finished_at if self._came_at is None else self._came_at
        self._finished_at, self._came_at = now, None
        return VisitTiming(
            round(busy_s * 1e6), round(waited_s * 1e6), round(began_at * 1e6), round(now * 1e6)
        )

    def _clear_now_and_then(self, micro_batch: MicroBatch | None) -> None:
        self._num_steps += 1
        if micro_batch is not None and micro_batch.is_prompt:
            self._num_tokens += len(micro_batch.tokens)
        if self._num_steps >= STEPS_BETWEEN_CLEARS or self._num_tokens >= TOKENS_BETWEEN_CLEARS:
            self._num_steps = self._num_tokens = 0
            mx.clear_cache()


def _awaited(output: Output) -> list[mx.array]:
    """The arrays that a step's output is made of."""
    if isinstance(output, HiddenStates):
        return [array for i, array in enumerate(output.arrays) if i in output.live]
    if isinstance(output, PendingSamples):
        return output.arrays
    if isinstance(output, RuledLogits):
        return [output.logits]
    if isinstance(output, PendingVector):
        return [output.vector]
    return [] if output is None else [output]


def _digest(boundary: Boundary | None, sampled: tuple[SampledToken, ...]) -> bytes:
    """Of every bit that is sent on; of a sampled token the logprobs too, which all of the logits
    have a part in."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for tensor in boundary.tensors if boundary is not None else ():
        digest.update(repr(tensor.spec).encode())
        if tensor.data is not None:
            digest.update(tensor.data)
    for token in sampled:
        known = ((token.token, token.logprob or 0.0), *token.top)
        digest.update(b"".join(struct.pack("<qd", *pair) for pair in known))
    return digest.digest()


def _start(begun: BegunStep) -> None:
    _compute([*_awaited(begun.output), *_states(begun.cache)])
    if isinstance(begun.output, RuledLogits):
        begun.output = sample_tokens(begun.output.logits, begun.output.samples, begun.rules)
        _compute(begun.output.arrays)


def _advance(rules: list[RowRules | None], sampled: tuple[SampledToken, ...]) -> None:
    """At once, so that the next masks are computed while the tokens travel."""
    for row, token in zip(rules, sampled, strict=False):
        if row is not None and token.error is None:
            row.advance(token.token)


def _compute(arrays: list[mx.array]) -> None:
    mx.async_eval(arrays)  # type: ignore[no-untyped-call]


def _states(cache: list[Cache]) -> list[mx.array]:
    return [array for entry in cache for array in state_arrays(entry)]


def _wait_for(output: Output) -> Sent:
    if isinstance(output, PendingSamples):
        return None, output.result(), None
    if isinstance(output, PendingVector):
        return None, (), output.result()
    mx.eval(_awaited(output))
    return (to_boundary(output), (), None) if isinstance(output, HiddenStates) else NOTHING
