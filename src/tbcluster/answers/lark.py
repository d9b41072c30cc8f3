"""Builds a grammar in llguidance's dialect of Lark.

The dialect: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

# JSON as chat templates render it, so that the model sees its own kind of text; and no more blanks,
# so that it cannot write them for ever.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Most calls in one answer.
MAX_CALLS = 16


class Lark:
    """Rules of one grammar; every method that makes one returns what refers to it.

    Args:
        special_tokens: The ids of special tokens by their text. llguidance keeps them apart from
            text that looks the same.
    """

    def __init__(self, special_tokens: Mapping[str, int]) -> None:
        self._special_tokens = special_tokens
        longest_first = sorted(special_tokens, key=len, reverse=True)
        self._pattern = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        self._lines: list[str] = []

    @property
    def num_rules(self) -> int:
        """How many there are so far."""
        return len(self._lines)

    def text(self, start: str) -> str:
        """The whole grammar."""
        return "\n".join([f"start: {start}", *self._lines])

    def rule(self, body: str) -> str:
        """A rule that stands for `body`."""
        name = f"r{len(self._lines)}"
        self._lines.append(f"{name}: {body}")
        return name

    def terminal(self, body: str) -> str:
        """A terminal: its body is regular."""
        name = f"T{len(self._lines)}"
        self._lines.append(f"{name}: {body}")
        return name

    def json(self, schema: Mapping[str, Any]) -> str:
        """JSON that satisfies a schema."""
        return self.rule(f"%json {json.dumps({**schema, 'x-guidance': _JSON_STYLE})}")

    def literal(self, text: str) -> str:
        """A text in which special tokens stand for themselves."""
        if not self._special_tokens:
            return quoted(text)
        parts = [part for part in self._pattern.split(text) if part]
        return " ".join(
            f"<[{self._special_tokens[part]}]>" if part in self._special_tokens else quoted(part)
            for part in parts
        )

    def is_special(self, text: str) -> bool:
        """Whether `text` begins with a special token."""
        return bool(self._special_tokens) and self._pattern.match(text) is not None

    def separated(self, items: Sequence[tuple[str, bool]], separator: str) -> str:
        """The items in their order with separators between; those that are not required (the
        second of each pair) may be left out."""
        more = first = ""
        for item, is_required in reversed(items):
            later = self.rule(f"{separator} {item} {more}" + ("" if is_required else f" | {more}"))
            begin = f"{item} {more}" + ("" if is_required else f" | {first}")
            more, first = later, self.rule(begin)
        return first

    def repeated(self, item: str, separator: str, *, parallel: bool) -> str:
        """One item, or up to `MAX_CALLS` of them."""
        if not parallel:
            return item
        return self.rule(f"{item} ({separator} {item}){{0,{MAX_CALLS - 1}}}")


def quoted(text: str) -> str:
    """A text as a Lark string."""
    return json.dumps(text, ensure_ascii=False)
