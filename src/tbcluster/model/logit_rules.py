"""Logit rules on the last stage: what was counted of a row, and how its logits change for it.

In the order of mlx-lm's `make_logits_processors`: bias, repetition, presence and frequency; a
grammar comes last. Presence and frequency look at the answer alone, as OpenAI's and vLLM's do;
repetition looks at the prompt too, as mlx-lm's and Hugging Face's does.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from tbcluster.core import LogitRules, TokenId
from tbcluster.errors import StageError
from tbcluster.model.grammar import Mask, fitted
from tbcluster.model.grammar_mask import FollowedGrammar


@dataclass(frozen=True, slots=True)
class LogitChanges:
    """How some logits of a row change: x becomes (x + bias) over or times factor, less penalty.

    Each array has an entry for each of the `tokens`; a factor divides what is positive.
    """

    tokens: NDArray[np.int32]
    bias: NDArray[np.float32]
    factor: NDArray[np.float32]
    penalty: NDArray[np.float32]


class TokenCounts:
    """The tokens of a row that rules look at, in arrays that grow with their number.

    Args:
        prompt: Its tokens, where a repetition penalty looks at them.
    """

    def __init__(self, rules: LogitRules, prompt: Sequence[TokenId]) -> None:
        self._rules = rules
        self._counts_answer = bool(rules.presence_penalty or rules.frequency_penalty)
        self._counts_all = rules.repetition_penalty != 1
        self._slots: dict[TokenId, int] = {}
        self._tokens = np.zeros(0, np.int32)
        self._bias = np.zeros(0, np.float32)
        self._in_answer = np.zeros(0, np.int32)
        self._in_context = np.zeros(0, np.int32)
        self._context: deque[int] = deque()
        for token, bias in rules.logit_bias:
            slot = self._slot(token)
            self._bias[slot] += bias
        for token in prompt:
            self._note(token)

    def advance(self, token: TokenId) -> None:
        """The answer has gone on by this token."""
        if self._counts_answer:
            slot = self._slot(token)
            self._in_answer[slot] += 1
        self._note(token)

    def changes(self) -> LogitChanges | None:
        """What they do to the logits now; None for nothing."""
        num = len(self._slots)
        if num == 0:
            return None
        rules, in_answer = self._rules, self._in_answer[:num]
        penalty = rules.presence_penalty * (in_answer > 0) + rules.frequency_penalty * in_answer
        factor = np.where(self._in_context[:num] > 0, rules.repetition_penalty, 1)
        return LogitChanges(
            self._tokens[:num],
            self._bias[:num],
            factor.astype(np.float32),
            penalty.astype(np.float32),
        )

    def _note(self, token: TokenId) -> None:
        if not self._counts_all:
            return
        slot = self._slot(token)
        self._in_context[slot] += 1
        limit = self._rules.repetition_context
        if limit is None:
            return
        self._context.append(slot)
        if len(self._context) > limit:
            self._in_context[self._context.popleft()] -= 1

    def _slot(self, token: TokenId) -> int:
        slot = self._slots.setdefault(token, len(self._slots))
        if slot >= len(self._tokens):
            size = max(16, 2 * slot)
            self._tokens = _grown(self._tokens, size)
            self._bias = _grown(self._bias, size)
            self._in_answer = _grown(self._in_answer, size)
            self._in_context = _grown(self._in_context, size)
        self._tokens[slot] = token
        return slot


class RowRules:
    """The state of one request's logit rules, from behind what was generated of it already."""

    def __init__(
        self,
        rules: LogitRules,
        prompt: Sequence[TokenId],
        generated: Sequence[TokenId],
        grammar: FollowedGrammar | None,
    ) -> None:
        self._counts = TokenCounts(rules, prompt)
        self._grammar = grammar
        for token in generated:
            self._counts.advance(token)

    def advance(self, token: TokenId) -> None:
        """The answer has gone on by this token."""
        self._counts.advance(token)
        if self._grammar is not None:
            self._grammar.advance(token)

    def changes(self) -> LogitChanges | None:
        """What counted tokens do to the logits now."""
        return self._counts.changes()

    def mask(self, vocab_size: int) -> Mask | None:
        """What the grammar allows of a vocabulary of this size; None for all. Waits for it.

        Raises:
            StageError: This row cannot go on.
        """
        if self._grammar is None:
            return None
        mask = fitted(self._grammar.mask(), vocab_size)
        if not mask.any():
            raise StageError("the grammar cannot be followed: the model lacks all tokens it allows")
        return mask


def apply_rules(
    logits: mx.array, rows: Sequence[RowRules | None]
) -> tuple[mx.array, dict[int, str]]:
    """Logits (num_rows, vocabulary) as the rules want them, as float32, and for each row that
    cannot go on the reason. Waits for the grammars' masks; computes nothing."""
    ruled = {row: rules for row, rules in enumerate(rows) if rules is not None}
    if not ruled:
        return logits, {}
    logits = logits.astype(mx.float32)
    changes = {row: rules.changes() for row, rules in ruled.items()}
    logits = _changed(logits, {row: one for row, one in changes.items() if one is not None})
    masks: dict[int, Mask] = {}
    failed: dict[int, str] = {}
    for row, rules in ruled.items():
        try:
            mask = rules.mask(logits.shape[-1])
        except StageError as error:
            failed[row] = str(error)
            continue
        if mask is not None:
            masks[row] = mask
    return _masked(logits, masks), failed


def _changed(logits: mx.array, changes: dict[int, LogitChanges]) -> mx.array:
    if not changes:
        return logits
    all_changes = list(changes.values())
    sizes = [len(one.tokens) for one in all_changes]
    rows = mx.array(np.repeat(np.array(list(changes), np.int32), sizes))
    tokens = mx.array(np.concatenate([one.tokens for one in all_changes]))
    bias = mx.array(np.concatenate([one.bias for one in all_changes]))
    factor = mx.array(np.concatenate([one.factor for one in all_changes]))
    penalty = mx.array(np.concatenate([one.penalty for one in all_changes]))
    values = logits[rows, tokens] + bias
    values = mx.where(values < 0, values * factor, values / factor) - penalty
    places = rows * logits.shape[-1] + tokens
    flat = mx.put_along_axis(logits.reshape(-1), places, values, axis=0)
    return flat.reshape(logits.shape)


def _masked(logits: mx.array, masks: dict[int, Mask]) -> mx.array:
    """Tokens that are not allowed become -inf. The bits are spread where the logits are."""
    if not masks:
        return logits
    words = mx.array(np.stack(list(masks.values())))
    bits = (words[:, :, None] >> mx.arange(32, dtype=mx.uint32)) & 1
    allowed = bits.reshape(len(masks), -1)[:, : logits.shape[-1]] != 0
    everything = mx.ones((1, logits.shape[-1]), dtype=mx.bool_)
    places = {row: i for i, row in enumerate(masks)}
    if len(masks) < logits.shape[0]:
        allowed = mx.concatenate([allowed, everything])
        allowed = allowed[mx.array([places.get(row, len(masks)) for row in range(len(logits))])]
    return mx.where(allowed, logits, -mx.inf)


def _grown(array: NDArray[Any], size: int) -> NDArray[Any]:
    grown = np.zeros(size, array.dtype)
    grown[: len(array)] = array
    return grown
