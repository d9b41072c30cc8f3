"""Grammars for values that a format writes as they are, between tags, without JSON's quotes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tbcluster.answers.lark import Lark, quoted
from tbcluster.answers.narrowing import narrowed
from tbcluster.answers.schemas import plain

_ANY = "/(?s:.*)/"
# The fewer complements a terminal has, the smaller is what llguidance makes of it.
_STRIPPED = r"/([^\s\x1c-\x1f]((?s:.*)[^\s\x1c-\x1f])?)?/"
_PLAIN = r"/([^<&\s\x1c-\x1f]([^<&\n\r]*[^<&\s\x1c-\x1f])?)?/"
_TAGLESS = r"/([^<]|<+[^<\/])*<*/"
_NOT_NULL = "~/[nN][uU][lL][lL]/"
_JSON_TYPES = ("integer", "number", "boolean", "object", "array")


class UnwritableError(Exception):
    """A format has no way to write such values so that they are read back as they were."""


@dataclass(frozen=True, slots=True)
class TagValues:
    """How a format's values are read.

    Attributes:
        end: What ends a value.
        excluded: What else would end it.
        strips: Whether blanks around a text are lost.
        has_null: Whether the text "null" is read as no value.
        reads_json: Whether all that is not of type string is read as JSON.
        cdata: Whether texts with "<", "&" or newlines are wrapped in CDATA.
    """

    end: str
    excluded: tuple[str, ...] = ()
    strips: bool = True
    has_null: bool = False
    reads_json: bool = False
    cdata: bool = False

    def value(self, lark: Lark, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
        """A value that satisfies `schema`, and its end.

        Raises:
            UnwritableError: The format cannot write such values.
        """
        simple = plain(schema, root)
        if simple.get("type") == "string":
            return self._text(lark, simple)
        if not self.reads_json and simple.get("type") not in _JSON_TYPES:
            raise UnwritableError("its type is not one alone")
        whole = {**_definitions(root), **simple}
        value = lark.json(narrowed(whole, tagless=bool(self.end)))
        return f"{value} {lark.literal(self.end)}" if self.end else value

    def _text(self, lark: Lark, schema: Mapping[str, Any]) -> str:
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if values is not None:
            texts = [quoted(value) for value in values if self._is_writable(value)]
            if not texts:
                raise UnwritableError("none of its values can be told from the format's own marks")
            return f"({' | '.join(texts)}) {lark.literal(self.end)}"
        if not self.cdata:
            return self._ended(lark, self._body(schema), self.end)
        terms = [*_constraints(schema), _NOT_NULL]
        wrapped = " & ".join([_TAGLESS, _without("]]>"), *terms])
        unwrapped = " & ".join([_PLAIN, *terms])
        whole = self._ended(lark, wrapped, f"]]>{self.end}")
        return f"({quoted('<![CDATA[')} {whole} | {self._ended(lark, unwrapped, self.end)})"

    def _ended(self, lark: Lark, body: str, end: str) -> str:
        # Where the end is text, it belongs to the terminal: nothing else tells where the body ends.
        text = lark.terminal(body)
        if lark.is_special(end):
            return f"{text} {lark.literal(end)}"
        return lark.terminal(f"{text} {quoted(end)}")

    def _body(self, schema: Mapping[str, Any]) -> str:
        terms = [_without(self.end.strip(), *self.excluded), *_constraints(schema)]
        if self.strips:
            terms.append(_STRIPPED)
        if self.has_null:
            terms.append(_NOT_NULL)
        return " & ".join(terms)

    def _is_writable(self, value: Any) -> bool:
        if not isinstance(value, str) or (self.has_null and value.lower() == "null"):
            return False
        marks = (self.end.strip(), *self.excluded, *("<&\n\r" if self.cdata else ""))
        is_kept = not self.strips or value == value.strip()
        return is_kept and not any(mark in value for mark in marks)


def _without(*texts: str) -> str:
    """Any text that holds none of these."""
    return " & ".join([_ANY, *(f"~/(?s:.*){_escaped(text)}(?s:.*)/" for text in texts)])


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", r"\/").replace("\\\n", r"\n").replace("\\\r", r"\r")


def _constraints(schema: Mapping[str, Any]) -> list[str]:
    terms = []
    if "minLength" in schema or "maxLength" in schema:
        terms.append(f"/(?s:.){{{schema.get('minLength', 0)},{schema.get('maxLength', '')}}}/")
    if "pattern" in schema:
        terms.append(_pattern(schema["pattern"]))
    return terms


def _pattern(pattern: str) -> str:
    """JSON Schema looks for a pattern anywhere, a terminal matches it as a whole."""
    inner = pattern.removeprefix("^")
    has_end = inner.endswith("$") and not inner.endswith("\\$")
    inner = inner[:-1] if has_end else inner
    is_anchored = inner != pattern
    if re.search(r"(?<!\\)(?<!\[)[\^$]", inner) or (is_anchored and "|" in inner):
        raise UnwritableError(f"its pattern {pattern!r} has anchors within")
    before = "" if pattern.startswith("^") else "(?s:.*)"
    after = "" if has_end else "(?s:.*)"
    whole = f"{before}({inner}){after}"
    slashed = re.sub(r"(\\.)|/", lambda found: found[1] or r"\/", whole, flags=re.DOTALL)
    return f"/{slashed}/".replace("\n", r"\n")


def _definitions(root: Mapping[str, Any]) -> dict[str, Any]:
    return {key: root[key] for key in ("$defs", "definitions") if key in root}


def property_schema(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter's own schema, with what its references point to."""
    return {**_definitions(root), **schema}
