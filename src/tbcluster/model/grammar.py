"""Grammars that answers have to match, through llguidance: what the coordinator does with them.

A grammar is compiled here once, with the model's own tokenizer, to refuse what cannot be served;
the last stage compiles it again and masks logits by it (`tbcluster.model.grammar_mask`).
"""

import json
import re
import textwrap
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark
from llguidance.hf import from_tokenizer
from mlx_lm.tokenizer_utils import TokenizerWrapper
from numpy.typing import NDArray

from tbcluster.core import MAX_GRAMMAR_CHARS, Grammar, TokenId
from tbcluster.errors import RequestError

# Bound the time that compiling takes (below half a second for what is served) and that a mask takes
# (some milliseconds). An object has four items in a row for each optional property.
LIMITS = LLParserLimits(max_items_in_row=20_000, max_grammar_size=20_000, verbose_errors=False)
# As Python writes JSON. Free whitespace would let a weak model write blanks until its tokens end.
JSON_OPTIONS: "JsonCompileOptions" = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "lenient": False,
}
# llguidance recurses over rules that refer to one another, some 4 KiB for each: four times what the
# longest grammar needs. Only what is touched takes memory.
STACK_BYTES = 1 << 28
# llguidance's time grows with the square of the rules, and refusing too many takes it longest.
MAX_LARK_RULES = 1000
# Reading GBNF goes over all of it once for each rule, in Python: about a second.
MAX_GBNF_WORK = 10_000_000
# For whatever the bounds above have overlooked.
MOST_SECONDS = 15.0
NUM_THREADS = 2
MAX_WORDS_CHARS = 500

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

# Possessive, and line by line: going back over what was matched would take minutes.
_LARK_START = re.compile(r"^[^\S\n]*+(?:%llguidance\b|start\s*+:)", re.MULTILINE)
_LARK_RULE = re.compile(r"^[^\S\n]*+[?!]?[A-Za-z_]\w*+[^\n:\"]*+:", re.MULTILINE)

T = TypeVar("T")
Mask = NDArray[np.uint32]


def grammar_threads(num_threads: int = NUM_THREADS) -> ThreadPoolExecutor:
    """Threads that no grammar's recursion overflows; llguidance lets go of the GIL in them."""
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="tbcluster-grammar")
    all_there = threading.Barrier(num_threads)
    usual = threading.stack_size(STACK_BYTES)
    try:
        for started in [pool.submit(all_there.wait) for _ in range(num_threads)]:
            started.result()
    finally:
        threading.stack_size(usual)
    return pool


def open_grammar_tokenizer(tokenizer: TokenizerWrapper) -> LLTokenizer:
    """llguidance's view of a tokenizer. Takes 10 ms, or a second with a large vocabulary, and holds
    the GIL.

    Raises:
        ValueError: llguidance cannot use it.
    """
    try:
        return from_tokenizer(
            # The wrapped one: what mlx-lm adds is for text, not for tokens.
            tokenizer._tokenizer,
            eos_token=sorted(tokenizer.eos_token_ids),
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    # Panics of its Rust code are no Exceptions.
    except BaseException as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def compile_grammar(tokenizer: LLTokenizer, text: str) -> LLMatcher:
    """A matcher at the beginning of an answer; call it in a thread of `grammar_threads`.

    Raises:
        ValueError: llguidance's words for what is wrong.
    """
    matcher = LLMatcher(tokenizer, text, log_level=0, limits=LIMITS)
    check(matcher)
    return matcher


def compute_mask(matcher: LLMatcher) -> Mask:
    """The tokens that may come next, one bit each, lowest bits first. Once the grammar allows
    nothing more these are the end-of-text tokens.

    Raises:
        ValueError: There are none, or the matcher has failed.
    """
    mask = np.frombuffer(matcher.compute_bitmask(), np.uint32)
    check(matcher)
    if not mask.any():
        raise ValueError("no token can follow")
    return mask


def check(matcher: LLMatcher) -> None:
    """Raises: ValueError when the matcher has failed, with its words."""
    if matcher.is_error():
        raise ValueError(matcher.get_error().replace("<non-verbose/>", "").strip())


class Grammars:
    """Makes and checks grammars for one model; thread-safe. Each method returns llguidance's
    serialization, for `Grammar.text`.

    Args:
        vocab_size: Of the model; a grammar that needs tokens beyond it is refused.
    """

    def __init__(self, tokenizer: TokenizerWrapper, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._lock = threading.Lock()
        self._opened: LLTokenizer | ValueError | None = None
        self._threads: ThreadPoolExecutor | None = None

    def open(self) -> None:
        """Do now what the first grammar would wait for, and others with it (a large vocabulary
        takes a second)."""
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = open_grammar_tokenizer(self._tokenizer)
                except ValueError as error:
                    self._opened = error

    def json_object(self, param: str = "json_schema") -> str:
        """Any JSON object.

        Raises:
            RequestError: This model's tokenizer cannot be constrained; `param` is told as given.
        """
        return self.json_schema({"type": "object"}, param)

    def json_schema(self, schema: dict[str, Any], param: str = "json_schema") -> str:
        """JSON that the schema admits, on one line.

        Raises:
            RequestError: It is no schema, uses what llguidance does not know, admits nothing, or
                is too large.
        """
        if not isinstance(schema, dict):
            raise RequestError(f"{param} is no JSON schema: it must be an object", param)
        try:
            text = json.dumps(schema, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"{param} is no JSON schema: {error}", param) from error
        _check_size(text, param)
        grammar = LLMatcher.grammar_from_json_schema
        return self._checked(lambda: grammar(text, overrides=JSON_OPTIONS), param)

    def regex(self, pattern: str, param: str = "regex") -> str:
        """Texts that match as a whole, in the syntax of Rust's `regex` (no look-around).

        Raises:
            RequestError: It cannot be read, matches nothing, or is too large.
        """
        _check_size(pattern, param)
        return self._checked(lambda: LLMatcher.grammar_from_regex(pattern), param)

    def lark(self, text: str, param: str = "grammar") -> str:
        """Texts of a context-free grammar: llguidance's dialect of Lark, or llama.cpp's GBNF.

        Raises:
            RequestError: It cannot be read, matches nothing, or is too large.
        """
        _check_size(text, param)
        return self._checked(lambda: LLMatcher.grammar_from_lark(_to_lark(text)), param)

    def for_prompt(self, text: str, prompt: Sequence[TokenId]) -> Grammar:
        """The grammar of an answer to this prompt, which leaves the model's reasoning free.

        Args:
            text: What one of the other methods returned.
        """
        tokenizer = self._tokenizer
        if not tokenizer.has_thinking:
            return Grammar(text)
        begins, ends = tokenizer.think_start_tokens, tokenizer.think_end_tokens
        if not begins or not ends:
            return Grammar(text)
        tokens = list(prompt)
        is_thinking = tokenizer.rfind_think_start(tokens) > tokenizer.rfind_think_end(tokens)
        return Grammar(text, tuple(begins), tuple(ends), is_thinking)

    def _checked(self, make: Callable[[], str], param: str) -> str:
        self.open()
        if isinstance(self._opened, ValueError):
            raise RequestError(
                f"{param} cannot be used with this model: llguidance does not know its kind of "
                f"tokenizer ({self._opened})",
                param,
            )
        try:
            text = make()
            _check_size(text, param)
            self._run(lambda: self._try(text))
        except (ValueError, RecursionError) as error:
            # They may quote a whole line of the grammar.
            words = textwrap.shorten(str(error), MAX_WORDS_CHARS)
            raise RequestError(
                f"{param} cannot be used: {words}: change or simplify it", param
            ) from error
        return text

    def _try(self, text: str) -> None:
        assert isinstance(self._opened, LLTokenizer)  # noqa: S101 - `_checked` has opened it
        mask = compute_mask(compile_grammar(self._opened, text))
        if not fitted(mask, self._vocab_size).any():
            raise ValueError("the model has no token that it could begin with")

    def _run(self, work: Callable[[], T]) -> T:
        with self._lock:
            threads = self._threads = self._threads or grammar_threads()
        running = threads.submit(work)
        try:
            return running.result(MOST_SECONDS)
        except TimeoutError as error:
            # It cannot be stopped; nobody else shall wait behind it.
            running.cancel()
            with self._lock:
                if self._threads is threads:
                    self._threads = None
            raise ValueError(f"it is not compiled after {MOST_SECONDS:g} s") from error


def fitted(mask: Mask, vocab_size: int) -> Mask:
    """A mask for logits of this width: what the tokenizer lacks is not allowed."""
    num_words = (vocab_size + 31) // 32
    words = np.zeros(num_words, np.uint32)
    num_known = min(num_words, len(mask))
    words[:num_known] = mask[:num_known]
    if vocab_size % 32:
        words[-1] &= np.uint32((1 << vocab_size % 32) - 1)
    return words


def _check_size(text: str, param: str) -> None:
    if len(text) > MAX_GRAMMAR_CHARS:
        raise RequestError(
            f"{param} has {len(text)} characters, at most {MAX_GRAMMAR_CHARS} are allowed: "
            "make it smaller",
            param,
        )


def _to_lark(text: str) -> str:
    lark = text if _LARK_START.search(text) else _from_gbnf(text)
    num_rules = len(_LARK_RULE.findall(lark))
    if num_rules > MAX_LARK_RULES:
        raise ValueError(f"it has {num_rules} rules, at most {MAX_LARK_RULES} are allowed")
    return lark


def _from_gbnf(text: str) -> str:
    if text.count("::=") * len(text) > MAX_GBNF_WORK:
        raise ValueError("it has too many rules for its length: write it in Lark, or split it")
    try:
        converted: str = gbnf_to_lark(text)
    except Exception as error:  # its reader raises plain Exceptions
        raise ValueError(f"neither Lark nor GBNF: {error}") from error
    return converted
