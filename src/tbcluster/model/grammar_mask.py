"""Grammars on the last stage: which tokens may come next, computed beside the forward passes."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from tbcluster.core import Grammar, TokenId
from tbcluster.errors import StageError, TbclusterError
from tbcluster.model.grammar import (
    Mask,
    check,
    compile_grammar,
    compute_mask,
    grammar_threads,
    open_grammar_tokenizer,
)
from tbcluster.model.source import check_folder
from tbcluster.model.tokenizer import open_tokenizer

# llguidance bounds what it keeps, not how long it takes: with ambiguous grammars that grows with
# the answer, and whoever shares the stage waits too. Some milliseconds are usual. Of CPU time, so
# that a busy machine makes no difference.
MOST_MASK_SECONDS = 0.25


class GrammarMasks:
    """Compiles grammars and computes their masks in threads of its own.

    Args:
        open_tokenizer: Called at once, in one of the threads: with a large vocabulary it takes a
            second and holds the GIL, which nobody waits for while the stage loads.
    """

    def __init__(self, open_tokenizer: Callable[[], LLTokenizer]) -> None:
        self._threads = grammar_threads()
        self._vocabulary = self._threads.submit(lambda: _read_vocabulary(open_tokenizer()))

    def follow(self, grammar: Grammar, generated: Sequence[TokenId]) -> "FollowedGrammar":
        """Follow one answer, from behind what was generated of it already."""
        return FollowedGrammar(self._threads, self._vocabulary, grammar, tuple(generated))


def masks_of_model(model_path: Path) -> GrammarMasks:
    """For the model in this folder."""
    return GrammarMasks(lambda: open_grammar_tokenizer(open_tokenizer(check_folder(model_path))))


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """A tokenizer, and masks of it.

    Attributes:
        all_but_ends: While reasoning: alone it is no answer and may not end one.
    """

    tokenizer: LLTokenizer
    everything: Mask
    all_but_ends: Mask


def _read_vocabulary(tokenizer: LLTokenizer) -> _Vocabulary:
    num_tokens = tokenizer.vocab_size
    bits = np.zeros((num_tokens + 31) // 32 * 32, np.uint8)
    bits[:num_tokens] = 1
    everything = _packed(bits)
    bits[tokenizer.eos_tokens] = 0
    return _Vocabulary(tokenizer, everything, _packed(bits))


def _packed(bits: NDArray[np.uint8]) -> Mask:
    return np.packbits(bits, bitorder="little").view(np.uint32)


class FollowedGrammar:
    """Where one answer is in its grammar. Computing the mask behind a token begins when the token
    is told; whoever samples the next one waits for it."""

    def __init__(
        self,
        threads: ThreadPoolExecutor,
        vocabulary: "Future[_Vocabulary]",
        grammar: Grammar,
        generated: tuple[TokenId, ...],
    ) -> None:
        self._threads = threads
        self._vocabulary = vocabulary
        self._gate = ThinkingGate(grammar)
        self._matcher: LLMatcher | None = None
        # What opens reasoning may begin as the answer may: this has not seen any of it. (llguidance
        # does not go back over tokens without a text.)
        self._fresh: LLMatcher | None = None
        # Whether it has begun with what the grammar does not allow.
        self._is_beside = False
        self._mask = threads.submit(lambda: self._begin(grammar.text, generated))

    def advance(self, token: TokenId) -> None:
        """The answer has gone on by this token."""
        before = self._mask
        self._mask = self._threads.submit(lambda: self._next(before, token))

    def mask(self) -> Mask:
        """The tokens that may come next, one bit each, lowest bits first; waits for it.

        Raises:
            StageError: This answer cannot go on: no token may follow, or the grammar has become
                too complex.
        """
        try:
            return self._mask.result()
        except (ValueError, TbclusterError) as error:
            raise StageError(f"the grammar cannot be followed: {error}") from error

    def _begin(self, text: str | None, generated: tuple[TokenId, ...]) -> Mask:
        if text is not None:
            self._matcher = compile_grammar(self._vocabulary.result().tokenizer, text)
        for token in generated:
            self._take(token)
        return self._compute()

    def _next(self, before: Future[Mask], token: TokenId) -> Mask:
        # One at a time; it has begun already, since threads take up what comes first.
        before.result()
        began_s = time.thread_time()
        self._take(token)
        mask = self._compute()
        spent_s = time.thread_time() - began_s
        if spent_s > MOST_MASK_SECONDS:
            raise ValueError(f"it is too ambiguous, one token of it took {spent_s:.2f} s")
        return mask

    def _take(self, token: TokenId) -> None:
        was_thinking = self._gate.is_thinking
        self._gate.take(token)
        if self._matcher is None or was_thinking:
            return
        if self._gate.is_thinking:
            self._matcher, self._is_beside = self._fresh or self._matcher, False
        elif self._gate.opening is None:
            self._matcher.consume_token(token)
        elif not self._is_beside:
            self._fresh = self._fresh or self._matcher.deep_copy()
            self._is_beside = self._matcher.try_consume_tokens([token]) == 0

    def _compute(self) -> Mask:
        matcher, vocabulary = self._matcher, self._vocabulary.result()
        if matcher is not None:
            check(matcher)
        closing, opening = self._gate.closing, self._gate.opening
        if closing is not None:
            return _with_token(np.zeros_like(vocabulary.everything), closing)
        if self._gate.is_thinking:
            return vocabulary.all_but_ends
        if opening is not None and self._is_beside:
            return _with_token(np.zeros_like(vocabulary.everything), opening)
        mask = vocabulary.everything
        if matcher is not None:
            mask = _spelled(matcher, vocabulary.tokenizer, compute_mask(matcher))
        return mask if opening is None else _with_token(mask, opening)


def _spelled(matcher: LLMatcher, tokenizer: LLTokenizer, mask: Mask) -> Mask:
    """Where only one text can follow, llguidance allows just the token that its tokenizer makes of
    it; if that is an added token, which is no text, the matcher refuses it: one character then."""
    words = np.flatnonzero(mask)
    if len(words) != 1 or (word := int(mask[words[0]])).bit_count() != 1:
        return mask
    if matcher.validate_tokens([int(words[0]) * 32 + word.bit_length() - 1]):
        return mask
    first = tokenizer.tokenize_bytes(matcher.compute_ff_bytes()[:1])
    if len(first) != 1 or not matcher.validate_tokens(first):
        return mask
    return _with_token(np.zeros_like(mask), first[0])


class ThinkingGate:
    """Tells reasoning, which is free of the grammar, from the answer.

    Reasoning is open from the start (`Grammar.is_thinking`), or is opened by the first tokens of
    all (anywhere where no grammar holds the answer), and goes on until its closing tokens have been
    generated, which is seen to once it is as long as it may be. Pure.
    """

    def __init__(self, grammar: Grammar) -> None:
        self._starts, self._ends = grammar.think_start, grammar.think_end
        self._opens_anywhere = grammar.text is None
        self._may_open = bool(self._starts)
        self._num_left = grammar.max_thinking
        self._num_forced = 0
        # The newest tokens that may be a part of the marker that is looked for.
        self._recent: tuple[TokenId, ...] = ()
        self.is_thinking = grammar.is_thinking

    @property
    def opening(self) -> TokenId | None:
        """The token that would open reasoning now, or goes on doing so, besides what the grammar
        allows; None too where everything is allowed anyway."""
        if self.is_thinking or not self._may_open or self._opens_anywhere:
            return None
        return self._starts[len(self._recent)]

    @property
    def closing(self) -> TokenId | None:
        """The token that has to come next, where reasoning is over its bound."""
        if not self.is_thinking or self._num_left is None or self._num_left > 0:
            return None
        return self._ends[self._num_forced]

    def take(self, token: TokenId) -> None:
        """The answer, or the reasoning before it, has gone on by this token."""
        if self.is_thinking:
            self._think(token)
        elif self._may_open:
            self._open(token)

    def _think(self, token: TokenId) -> None:
        if self.closing is not None:
            self._num_forced += 1
        elif self._num_left is not None:
            self._num_left -= 1
        self._recent = (*self._recent, token)[-len(self._ends) :]
        if self._recent == self._ends:
            self.is_thinking, self._recent = False, ()
            self._may_open = self._opens_anywhere and bool(self._starts)

    def _open(self, token: TokenId) -> None:
        self._recent = (*self._recent, token)[-len(self._starts) :]
        if self._recent == self._starts:
            self.is_thinking, self._recent, self._num_forced = True, (), 0
        elif not self._opens_anywhere:
            self._may_open = self._recent == self._starts[: len(self._recent)]


def _with_token(mask: Mask, token: TokenId) -> Mask:
    words = mask.copy()
    words[token // 32] |= np.uint32(1 << token % 32)
    return words
