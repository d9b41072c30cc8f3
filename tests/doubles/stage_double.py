"""All stages in one object: decodes steps and answers with results, without any model."""

from collections import Counter
from collections.abc import Callable, Sequence

from tbcluster.core import DropCache, MicroBatch, NewCache, SampledToken, TokenId
from tbcluster.transport.memory import MemoryChannel
from tbcluster.wire.messages import Result, Step, decode_step, encode_result

NextToken = Callable[[Sequence[TokenId]], TokenId]

LETTERS = 26


def some_letter(context: Sequence[TokenId]) -> TokenId:
    """A letter that depends on every token before it and on their order."""
    state = 0
    for token in context:
        state = (state * 31 + token) % 10_007
    return ord("a") + state % LETTERS


def continuation(
    prompt: Sequence[TokenId], num_tokens: int, next_token: NextToken = some_letter
) -> list[TokenId]:
    """What the double answers to this prompt."""
    tokens = list(prompt)
    for _ in range(num_tokens):
        tokens.append(next_token(tokens))
    return tokens[len(prompt) :]


class StageDouble:
    """Takes steps from `inbound` and sends what a chain of real stages would into `results`.

    Attributes:
        steps: Every step that came, in order.
        contexts: The tokens in each cache.
        num_made, num_dropped: Cache operations by cache id.
        failing: Steps of these caches are answered with an error.
    """

    def __init__(self, next_token: NextToken = some_letter) -> None:
        self.inbound = MemoryChannel()
        self.results = MemoryChannel()
        self.steps: list[Step] = []
        self.contexts: dict[int, list[TokenId]] = {}
        self.num_made: Counter[int] = Counter()
        self.num_dropped: Counter[int] = Counter()
        self.failing: set[int] = set()
        self._next_token = next_token
        self._epoch = 0

    def work(self, most: int | None = None) -> int:
        """Answer what has come, `most` steps at most, and say how many there were."""
        num_done = 0
        while num_done != most and (frames := self.inbound.receive(0)) is not None:
            self._answer(decode_step(frames))
            num_done += 1
        return num_done

    def work_until_woken(self) -> None:
        """Answer steps until `inbound.wake` is called."""
        while (frames := self.inbound.receive(None)) is not None:
            self._answer(decode_step(frames))

    def _answer(self, step: Step) -> None:
        self.steps.append(step)
        if step.epoch > self._epoch:
            self.contexts.clear()
            self._epoch = step.epoch
        for operation in step.operations:
            self._apply(operation)
        sampled, error = self._compute(step.micro_batch) if step.micro_batch else (None, None)
        result = Result(step.epoch, step.step_id, sampled, error, compute_us=(1,))
        self.results.send(encode_result(result))

    def _apply(self, operation: NewCache | DropCache) -> None:
        if isinstance(operation, NewCache):
            self.num_made[operation.cache_id] += 1
            self.contexts[operation.cache_id] = []
        else:
            self.num_dropped[operation.cache_id] += 1
            self.contexts.pop(operation.cache_id, None)

    def _compute(self, micro_batch: MicroBatch) -> tuple[SampledToken | None, str | None]:
        context = self.contexts.get(micro_batch.cache_id)
        if context is None:
            return None, f"no cache {micro_batch.cache_id}"
        if micro_batch.cache_id in self.failing:
            return None, "stage 0 failed: as it was told"
        context.extend(micro_batch.tokens)
        if micro_batch.sample is None:
            return None, None
        if micro_batch.sample.position != len(context):
            return None, f"position {micro_batch.sample.position} after {len(context)} tokens"
        return SampledToken(self._next_token(context)), None
