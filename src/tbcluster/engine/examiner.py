"""Examinations that wait for room or are on their way."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from tbcluster.core import MicroBatch, Sample, SamplingParams, StepResult, TokenId
from tbcluster.engine.emission import tell
from tbcluster.engine.examination import Examination
from tbcluster.engine.works import Works
from tbcluster.errors import StageError, TbclusterError

# Called in the engine's thread, once.
OnExamined = Callable[[Examination | TbclusterError], None]

# The runner-up says how near a tie is.
SAMPLING = SamplingParams(num_logprobs=2)


class _Asked(NamedTuple):
    tokens: tuple[TokenId, ...]
    on_result: OnExamined


class Examiner:
    """Sends each examination as one step, past the scheduler, beside whatever else is running."""

    def __init__(self) -> None:
        self._waiting: deque[_Asked] = deque()
        self._sent: dict[int, OnExamined] = {}

    def ask(self, tokens: tuple[TokenId, ...], on_result: OnExamined) -> None:
        """Examine what the stages make of these tokens."""
        self._waiting.append(_Asked(tokens, on_result))

    def send(self, works: Works) -> None:
        """Send those that there is room for."""
        while self._waiting:
            asked = self._waiting[0]
            started = works.caches.start(asked.tokens, uses_prefixes=False)
            if started is None:
                return
            self._waiting.popleft()
            sample = Sample(SAMPLING, len(asked.tokens))
            batch = MicroBatch(started.cache_id, asked.tokens, (sample,), is_examined=True)
            step_id = works.pipeline.submit(batch, works.caches.take_operations())
            self._sent[step_id] = asked.on_result
            works.caches.drop(started.cache_id)

    def completed(self, result: StepResult) -> None:
        """The step of an examination came back."""
        on_result = self._sent.pop(result.step_id)
        if result.error is not None:
            tell(on_result, StageError(result.error))
        elif len(result.sampled) != 1 or not 0 < len(result.digests) == len(result.timings):
            tell(on_result, StageError("what came of an examination's step is no examination"))
        else:
            tell(on_result, Examination(result.digests, result.sampled[0]))

    def end(self, error: TbclusterError) -> None:
        """None of them will be answered any more."""
        asked = [*self._sent.values(), *(asked.on_result for asked in self._waiting)]
        self._sent.clear()
        self._waiting.clear()
        for on_result in asked:
            tell(on_result, error)
