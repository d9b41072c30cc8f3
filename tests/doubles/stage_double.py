"""All stages in one object: decodes steps and answers with results, without any model."""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tbcluster.core import MicroBatch, Pooling, Sample, SampledToken, TokenId, VisitTiming
from tbcluster.transport.memory import MemoryChannel
from tbcluster.wire.messages import Result, Step, decode_step, encode_result
from tbcluster.wire.operations import (
    CacheOperation,
    CopyCache,
    DropCache,
    DropRules,
    ForgetSaved,
    JoinLane,
    KeepRows,
    KeepSaved,
    LoadCache,
    NewCache,
    NewRules,
    SaveCache,
    TakeRow,
)

# A failure of these leaves a lane that is not what it should be: nothing is computed with it.
ON_LANES = (JoinLane, KeepRows)

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


def hidden_states(context: Sequence[TokenId]) -> tuple[float, ...]:
    """What the double's head is given after the last of these tokens."""
    return (float(some_letter(context)), float(len(context)), 1.0)


def embedding_of(
    prompt: Sequence[TokenId], pooling: Pooling, start: int = 0
) -> npt.NDArray[np.float32]:
    """The double's hidden states after the last token of a prompt, or the sum of those after each
    from `start` on."""
    if pooling is Pooling.LAST:
        return np.array(hidden_states(prompt), "<f4")
    parts = [hidden_states(prompt[: end + 1]) for end in range(start, len(prompt))]
    return np.sum(np.array(parts, "<f4"), axis=0)


class StageDouble:
    """Takes steps from `inbound` and sends what a chain of real stages would into `results`.

    Attributes:
        steps: Every step that came, in order.
        contexts: The tokens in each row of each cache; a sequence's own cache has one row.
        saved: The tokens of each prefix on disk.
        most_tokens: Most tokens that all caches held at once, rows padded to the longest.
        has_failed: Whether a step has: caches that were not made may be dropped from then on.
        fails_late: Copies of a cache are made before its step is seen to have failed, and answers
            from what lacks tokens are wrong (real stages check no positions).
        fails: Says which rows make a step fail, by their tokens before it.
        spoils: Says which rows alone cannot be sampled, by their tokens before that.
        rules: For each state of logit rules what was generated under them, as far as it knows.
    """

    def __init__(self, next_token: NextToken = some_letter) -> None:
        self.inbound = MemoryChannel()
        self.results = MemoryChannel()
        self.steps: list[Step] = []
        self.contexts: dict[int, list[list[TokenId]]] = {}
        self.saved: dict[str, list[TokenId]] = {}
        self.most_tokens = 0
        self.has_failed = False
        self.fails_late = False
        self.fails: Callable[[Sequence[TokenId]], bool] = lambda _: False
        self.spoils: Callable[[Sequence[TokenId]], bool] = lambda _: False
        self.rules: dict[int, list[TokenId]] = {}
        self._next_token = next_token
        self._epoch = 0

    @property
    def num_tokens(self) -> int:
        """Tokens that all caches hold, rows padded to the longest."""
        return sum(len(rows) * max(map(len, rows)) for rows in self.contexts.values())

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
            self.rules.clear()
            self._epoch = step.epoch
        sampled: tuple[SampledToken, ...] = ()
        vector: bytes | None = None
        digests: tuple[bytes, ...] = ()
        error = self._apply_all(step)
        if error is None and step.micro_batch is not None:
            try:
                sampled = self._compute(step.micro_batch)
                vector = self._pool(step.micro_batch)
                digests = self._digests(step.micro_batch)
            except (LookupError, ValueError) as problem:
                error = f"stage 0 failed: {problem}"
        if error is not None:
            self._note_failure(step.micro_batch)
        self.most_tokens = max(self.most_tokens, self.num_tokens)
        timings = (VisitTiming(1, 0),)
        result = Result(step.epoch, step.step_id, sampled, error, timings, vector, digests)
        self.results.send(encode_result(result))

    def _apply_all(self, step: Step) -> str | None:
        """Apply every operation, whatever one of them raises. The first failure is told, if it is a
        reason not to compute the micro-batch or there is none."""
        failure = None
        for operation in step.operations:
            try:
                self._apply(operation)
            except (LookupError, ValueError) as problem:
                if step.micro_batch is None or isinstance(operation, ON_LANES):
                    failure = failure or f"stage 0 failed: {problem}"
        return failure

    def _note_failure(self, micro_batch: MicroBatch | None) -> None:
        """As real stages do, drop the cache that the step may have spoiled."""
        self.has_failed = True
        if micro_batch is not None and not self.fails_late:
            self.contexts.pop(micro_batch.cache_id, None)

    def _apply(self, operation: CacheOperation) -> None:
        contexts = self.contexts
        match operation:
            case NewCache(cache_id):
                self._make(cache_id, [])
            case CopyCache(cache_id, source, num_trimmed):
                (row,) = contexts[source]
                self._make(cache_id, row[: len(row) - num_trimmed])
            case JoinLane(cache_id, sources):
                joined = [row for source in sources for row in contexts[source]]
                for source in sources:
                    del contexts[source]
                contexts.setdefault(cache_id, []).extend(joined)
            case TakeRow(cache_id, lane, row_index):
                self._make(cache_id, contexts[lane][row_index])
            case KeepRows(cache_id, rows):
                if not rows:
                    raise ValueError("a lane must keep a row")
                contexts[cache_id] = [contexts[cache_id][row] for row in rows]
            case DropCache(cache_id):
                if contexts.pop(cache_id, None) is None and not self.has_failed:
                    raise ValueError(f"no cache {cache_id} to drop")
            case SaveCache(cache_id, name):
                (row,) = contexts[cache_id]
                self.saved[name] = list(row)
            case LoadCache(cache_id, name):
                self._make(cache_id, self.saved[name])
            case ForgetSaved(name):
                self.saved.pop(name, None)
            case KeepSaved(names):
                for name in self.saved.keys() - set(names):
                    del self.saved[name]
            case NewRules(rules_id, _, _, generated):
                if rules_id in self.rules:
                    raise ValueError(f"rules {rules_id} are made twice")
                self.rules[rules_id] = list(generated)
            case DropRules(rules_id):
                del self.rules[rules_id]

    def _make(self, cache_id: int, tokens: list[TokenId]) -> None:
        if cache_id in self.contexts:
            raise ValueError(f"cache {cache_id} is made twice")
        self.contexts[cache_id] = [list(tokens)]

    def _compute(self, micro_batch: MicroBatch) -> tuple[SampledToken, ...]:
        rows = self.contexts[micro_batch.cache_id]
        if any(map(self.fails, rows)):
            raise ValueError("as it was told")
        if not micro_batch.samples or micro_batch.is_examined:
            (row,) = rows
            row.extend(micro_batch.tokens)
            return tuple(self._sample(row, sample) for sample in micro_batch.samples)
        for row, token, sample in zip(rows, micro_batch.tokens, micro_batch.samples, strict=True):
            row.append(token)
            if sample.position != len(row) and not self.fails_late:
                raise ValueError(f"position {sample.position} after {len(row)} tokens")
        return tuple(
            self._sample(row, sample) for row, sample in zip(rows, micro_batch.samples, strict=True)
        )

    def _sample(self, row: Sequence[TokenId], sample: Sample) -> SampledToken:
        """Rules change nothing here, but their state has to know the row's newest tokens."""
        if self.spoils(row):
            return SampledToken(0, error="as it was told")
        token = self._pick(row, sample)
        if sample.rules_id is not None:
            generated = self.rules[sample.rules_id]
            if generated != list(row[len(row) - len(generated) :]):
                raise ValueError(f"rules {sample.rules_id} do not know the row's tokens")
            generated.append(token)
        return SampledToken(token)

    def _pick(self, row: Sequence[TokenId], _: Sample) -> TokenId:
        return self._next_token(row)

    def _digests(self, micro_batch: MicroBatch) -> tuple[bytes, ...]:
        if not micro_batch.is_examined:
            return ()
        (row,) = self.contexts[micro_batch.cache_id]
        return (blake2b(repr(row).encode(), digest_size=8).digest(),)

    def _pool(self, micro_batch: MicroBatch) -> bytes | None:
        if micro_batch.pooling is None:
            return None
        (row,) = self.contexts[micro_batch.cache_id]
        start = len(row) - len(micro_batch.tokens)
        return embedding_of(row, micro_batch.pooling, start).tobytes()
