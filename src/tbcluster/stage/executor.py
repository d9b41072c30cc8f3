"""What a stage does with a step. MLX, no sockets: a step in, a step or a result out."""

import logging
import time
from dataclasses import replace

import mlx.core as mx

from tbcluster.core import CacheOperation, DropCache, MicroBatch, NewCache, SampledToken
from tbcluster.errors import StageError, TbclusterError
from tbcluster.model.arrays import from_boundary, to_boundary
from tbcluster.model.caches import Cache
from tbcluster.model.sampling import sample_token
from tbcluster.model.slicing import HiddenStates, StageModel, evaluate
from tbcluster.wire.messages import Boundary, Result, Step

logger = logging.getLogger(__name__)

# As often as mlx-lm: MLX keeps freed buffers, and growing caches leave ever new sizes behind.
STEPS_BETWEEN_CLEARS = 256


class StageExecutor:
    """Owns a stage's caches and runs its layers.

    Args:
        epoch: Steps of earlier epochs are dropped. A later one clears all caches and takes over.
    """

    def __init__(self, model: StageModel, index: int, num_stages: int, epoch: int) -> None:
        self._model = model
        self._index = index
        self._is_last = index == num_stages - 1
        self._epoch = epoch
        self._caches: dict[int, list[Cache]] = {}
        self._num_steps = 0

    @property
    def num_caches(self) -> int:
        return len(self._caches)

    def run(self, step: Step) -> Step | Result | None:
        """Do this stage's part and return what to send on; None for a step of a past epoch."""
        if step.epoch < self._epoch:
            return None
        if step.epoch > self._epoch:
            self._caches.clear()
            self._epoch = step.epoch
        started = time.perf_counter()
        boundary, sampled, error = self._compute(step)
        compute_us = (*step.compute_us, round((time.perf_counter() - started) * 1e6))
        is_over = error or step.micro_batch is None or step.visit == self._num_visits - 1
        if self._is_last and is_over:
            return Result(step.epoch, step.step_id, sampled, error, compute_us)
        visit = step.visit + self._is_last
        return replace(step, boundary=boundary, error=error, compute_us=compute_us, visit=visit)

    @property
    def _num_visits(self) -> int:
        return len(self._model.segments)

    def _apply(self, operation: CacheOperation) -> None:
        match operation:
            case NewCache(cache_id=cache_id):
                self._caches[cache_id] = self._model.make_cache()
            case DropCache(cache_id=cache_id):
                self._caches.pop(cache_id, None)

    def _compute(self, step: Step) -> tuple[Boundary | None, SampledToken | None, str | None]:
        try:
            if step.visit == 0:
                for operation in step.operations:
                    self._apply(operation)
            if step.error is not None or step.micro_batch is None:
                return None, None, step.error
            return *self._forward(step, step.micro_batch), None
        except TbclusterError as error:
            return None, None, f"stage {self._index}: {error}"
        except Exception as error:  # whatever a bad step makes a model raise ends that request
            logger.exception("stage %d failed in step %d", self._index, step.step_id)
            return None, None, f"stage {self._index} failed: {type(error).__name__}: {error}"

    def _forward(
        self, step: Step, micro_batch: MicroBatch
    ) -> tuple[Boundary | None, SampledToken | None]:
        cache = self._caches.get(micro_batch.cache_id)
        if cache is None:
            raise StageError(f"no cache {micro_batch.cache_id} on this stage")
        if not 0 <= step.visit < self._num_visits:
            raise StageError(f"no visit {step.visit} on this stage")
        incoming = from_boundary(step.boundary) if step.boundary is not None else None
        tokens = mx.array([micro_batch.tokens], dtype=mx.int32)
        output = self._model.forward(tokens, cache, incoming, step.visit)
        boundary = sampled = None
        if isinstance(output, HiddenStates):
            evaluate(output, cache)
            boundary = to_boundary(output)
        else:
            if micro_batch.sample is not None:
                sampled = sample_token(output, micro_batch.sample)
            evaluate(None, cache)
        self._clear_now_and_then(is_prefill=micro_batch.sample is None)
        return boundary, sampled

    def _clear_now_and_then(self, *, is_prefill: bool) -> None:
        self._num_steps += 1
        if is_prefill or self._num_steps % STEPS_BETWEEN_CLEARS == 0:
            mx.clear_cache()
