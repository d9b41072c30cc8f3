"""A tokenizer's added tokens, and texts encoded so that none of them comes about."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from tbcluster.core import TokenId

# Begins no word of its own, and merges with nothing that stands behind a token.
LEAD = "\n"
# What may come next after a beginning that words share; "" where one ends.
_Branch: TypeAlias = dict[str, "_Branch"]


class AddedTokens:
    """A tokenizer's added tokens that are more than words.

    Attributes:
        ids: Their token ids.
        thinking: The ids of those among them that mark reasoning.
        anywhere: Finds them in a text; None if there are none.
        in_answer: Finds those that are not about reasoning.
        is_normalized: Whether text that looks different can become one of them.
        is_seamless: Whether a text has the same tokens whatever stands before it, as it has with
            tokenizers of bytes.
    """

    def __init__(self, tokenizer: Any) -> None:
        added: Mapping[str, TokenId] = tokenizer.added_tokens_encoder
        # Runs of blanks and single characters are words of the vocabulary that control nothing.
        words = {text for text in added if text.strip() and len(text) > 1}
        thinking = words & {tokenizer.think_start, tokenizer.think_end}
        self.ids = {added[word] for word in words}
        self.thinking = {added[word] for word in thinking}
        self.anywhere = _any_of(words)
        self.in_answer = _any_of(words - thinking)
        self.is_normalized = _normalizes(tokenizer)
        self.is_seamless = all(
            follows(tokenizer, encode(tokenizer, text), text) for text in ("a", " a", "<")
        )


# Reading thousands of added tokens takes longer than a short chat.
@lru_cache(maxsize=4)
def added_tokens(tokenizer: Any) -> AddedTokens:
    """A tokenizer's, read once."""
    return AddedTokens(tokenizer)


def encode(tokenizer: Any, text: str) -> list[TokenId]:
    """A text's tokens, without any that the tokenizer would put before or after."""
    return list(tokenizer.encode(text, add_special_tokens=False)) if text else []


def _decode(tokenizer: Any, tokens: list[TokenId]) -> str:
    return str(
        tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def follows(tokenizer: Any, tokens: list[TokenId], text: str) -> bool:
    """Whether they make just this text after others."""
    lead = encode(tokenizer, LEAD)
    return _decode(tokenizer, lead + tokens) == _decode(tokenizer, lead) + text


def _any_of(words: Iterable[str]) -> re.Pattern[str] | None:
    """Matches the longest of the words. There may be thousands, which share their beginnings: the
    expression branches where they part, so that each character is looked at once."""
    root: _Branch = {}
    for word in words:
        branch = root
        for char in word:
            branch = branch.setdefault(char, {})
        branch[""] = {}
    return re.compile(_expression(root)) if root else None


def _expression(branch: "_Branch") -> str:
    options = [re.escape(char) + _expression(rest) for char, rest in branch.items() if char]
    if not options:
        return ""
    is_word = "" in branch
    if len(options) == 1 and not is_word:
        return options[0]
    return f"(?:{'|'.join(options)}){'?' if is_word else ''}"


def _normalizes(tokenizer: Any) -> bool:
    """Whether text that is no added token can be made one before it is looked for."""
    if getattr(tokenizer.backend_tokenizer, "normalizer", None) is None:
        return False
    return any(token.normalized for token in tokenizer.added_tokens_decoder.values())
