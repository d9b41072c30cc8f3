"""Reads a tool call's name and arguments while they are still being generated.

A reader is given all of a block's text so far, again and again, and says what has become certain.
What it says is never taken back, so it speaks only where mlx-lm's parser will say the same of the
finished block; wherever that is not sure, it says nothing and the block's end decides.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from re import DOTALL, Pattern
from re import compile as pattern
from typing import Protocol, TypeAlias

from tbcluster.answers.parsing import ParsedCall, to_json


@dataclass(frozen=True, slots=True)
class Began:
    """A call's name is known."""

    name: str
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Grew:
    """More of the last call's arguments."""

    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The last call is complete; the block goes on at `position`."""

    position: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The last call cannot be read; the block's end decides."""


Event: TypeAlias = Began | Grew | Ended | Failed
# A call's text -> the call; raises ValueError.
ParseOne: TypeAlias = Callable[[str], ParsedCall]


class CallReader(Protocol):
    """One block's reader."""

    def read(self, text: str) -> Iterator[Event]:
        """What has become certain with the newest part of `text`."""
        ...

    def cut(self, text: str) -> Iterator[Event]:
        """What can still be had of a block that was cut off."""
        ...


class WholeReader:
    """For formats whose calls are known only at the end."""

    def read(self, text: str) -> Iterator[Event]:
        return iter(())

    def cut(self, text: str) -> Iterator[Event]:
        return iter(())


class JsonReader:
    """Arguments that are JSON in the format itself are passed on as they come.

    Args:
        head: Matches what comes before the arguments' brace; has a group `name`, perhaps an `id`.
    """

    def __init__(self, head: Pattern[str]) -> None:
        self._head = head
        self._position = 0
        self._object: _JsonObject | None = None

    def read(self, text: str) -> Iterator[Event]:
        while self._position < len(text):
            if self._object is None:
                head = self._head.search(text, self._position)
                if head is None:
                    return
                self._position = head.end()
                self._object = _JsonObject()
                yield Began(head["name"], head.groupdict().get("id"))
            size, is_complete = self._object.take(text[self._position :])
            yield Grew(text[self._position : self._position + size])
            self._position += size
            if is_complete:
                self._object = None
                yield Ended(self._position)

    def cut(self, text: str) -> Iterator[Event]:
        return iter(())


class _JsonObject:
    """Finds where a JSON object ends, however it is chopped."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def take(self, text: str) -> tuple[int, bool]:
        """How many characters still belong to it, and whether it ends with them."""
        for index, char in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._in_string:
                self._is_escaped = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return index + 1, True
        return len(text), False


@dataclass(frozen=True, slots=True)
class Tags:
    """A format that writes each parameter between tags.

    Attributes:
        start: Matches a call's beginning; a group `name`, unless only the parser can tell it.
        parameter: Matches one whole parameter.
        parameter_end: What every parameter ends with.
        end: What a call ends with, for the parser and in the text; "" if it ends with its block.
        is_one: Whether a block holds one call, whose `end` may be part of a value.
        shield: What an `end` means nothing after, until the parameter has ended.
        arguments_end: What ends all parameters where the format may write them in one.
    """

    start: Pattern[str]
    parameter: Pattern[str]
    parameter_end: str
    end: str = ""
    is_one: bool = False
    shield: str | None = None
    arguments_end: str = ""

    @property
    def ends(self) -> tuple[str, ...]:
        """Whatever ends a part of a call."""
        return tuple(filter(None, (self.parameter_end, self.end, self.arguments_end)))


class TagReader:
    """Each parameter that is complete is parsed alone, by mlx-lm's parser, and passed on."""

    def __init__(self, tags: Tags, parse_one: ParseOne) -> None:
        self._tags = tags
        self._parse_one = parse_one
        self._position = 0
        self._seen = 0
        self._call: str | None = None
        self._num_arguments = 0
        self._has_failed = False

    def read(self, text: str) -> Iterator[Event]:
        if not self._has_news(text):
            return
        while True:
            events = self._begin(text) if self._call is None else self._go_on(text)
            if events is None:
                return
            yield from events

    def cut(self, text: str) -> Iterator[Event]:
        if self._call is None:
            return
        closed = text[self._position :] + self._tags.parameter_end
        found = self._tags.parameter.search(closed)
        if found is not None:
            yield from self._arguments(found.group())

    def _has_news(self, text: str) -> bool:
        """Whether anything can have ended: searching all of a long value is in vain otherwise."""
        ends = (">",) if self._call is None else self._tags.ends
        first = max(self._position, self._seen - max(map(len, ends)))
        self._seen = len(text)
        return any(text.find(end, first) >= 0 for end in ends)

    def _begin(self, text: str) -> list[Event] | None:
        """None where there is nothing to go on with yet, as in `_go_on`."""
        start = self._tags.start.search(text, self._position)
        if start is None:
            return None
        self._call, self._num_arguments, self._has_failed = start.group(), 0, False
        self._position = start.end()
        try:
            name = start.groupdict().get("name") or self._parse_one(self._closed("")).name
        except ValueError:
            self._has_failed = True
            return []
        return [Began(name)]

    def _go_on(self, text: str) -> list[Event] | None:
        parameter = self._tags.parameter.search(text, self._position)
        end = self._end(text)
        if parameter is not None and (end is None or parameter.end() <= end):
            self._position = parameter.end()
            return self._arguments(parameter.group())
        if end is None:
            return None
        self._position = end + len(self._tags.end)
        self._call = None
        if self._has_failed:
            return []
        return [Grew("}" if self._num_arguments else "{}"), Ended(self._position)]

    def _end(self, text: str) -> int | None:
        if self._tags.is_one or not self._tags.end:
            return None
        end = text.find(self._tags.end, self._position)
        shield = self._tags.shield
        if end < 0 or (shield and 0 <= text.find(shield, self._position) < end):
            return None
        return end

    def _arguments(self, parameter: str) -> list[Event]:
        """A parameter's JSON; a format may hold all of them in one."""
        if self._has_failed:
            return []
        try:
            arguments = self._parse_one(self._closed(parameter)).arguments
            texts = [f"{to_json(name)}: {to_json(value)}" for name, value in arguments.items()]
        except ValueError:
            self._has_failed = True
            return [Failed()]
        first = self._num_arguments
        self._num_arguments += len(texts)
        return [
            Grew(("{" if number == 0 else ", ") + text)
            for number, text in enumerate(texts, start=first)
        ]

    def _closed(self, parameter: str) -> str:
        return f"{self._call}{parameter}{self._tags.end}"


_NAME = r"(?P<quote>[\"']?)(?P<name>[^\s\"'<>][^\"'<>]*?)(?P=quote)\s*>"


def _arg_tags(prefix: str) -> Tags:
    key, value = f"{prefix}arg_key", f"{prefix}arg_value"
    return Tags(
        start=pattern(rf"\A\s*(?P<name>[^<{{]*?)\s*(?=<{key}>)"),
        parameter=pattern(rf"<{key}>(.*?)</{key}>(?:\\n|\s)*<{value}>(.*?)</{value}>", DOTALL),
        parameter_end=f"</{value}>",
    )


# By the name of mlx-lm's parser.
_JSON_HEADS = {
    "json_tools": pattern(
        r'\A\s*\{\s*"name"\s*:\s*"(?P<name>[^"\\]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
    ),
    # The older list of objects has its ids behind the arguments: it is read at the end.
    "mistral": pattern(
        r"(?:\A\s*|\[TOOL_CALLS\]\s*|(?<=\})\s*)(?P<name>[\w-]+)\s*\[ARGS\]\s*(?=\{)"
    ),
    "kimi_k2": pattern(
        r"<\|tool_call_begin\|>\s*(?P<id>(?:functions\.)?(?P<name>[^<]+?):\d+)\s*"
        r"<\|tool_call_argument_begin\|>\s*(?=\{)"
    ),
}
_TAGS = {
    "qwen3_coder": Tags(
        start=pattern(r"<function=\s*(?P<name>[^\s<>]+)>"),
        parameter=pattern(r"<parameter=(.*?)</parameter>", DOTALL),
        parameter_end="</parameter>",
        end="</function>",
        is_one=True,
    ),
    "glm47": _arg_tags(""),
    "laguna": _arg_tags(""),
    "longcat": _arg_tags("longcat_"),
    "minimax_m2": Tags(
        start=pattern(rf"<invoke name=\s*{_NAME}"),
        parameter=pattern(r"<parameter name=(.*?)</parameter>", DOTALL),
        parameter_end="</parameter>",
        end="</invoke>",
    ),
    "minicpm5": Tags(
        start=pattern(rf"\A\s*{_NAME}"),
        parameter=pattern(
            r"<param\s+name\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+)\s*>.*?</param>", DOTALL
        ),
        parameter_end="</param>",
    ),
    "muse_spark": Tags(
        start=pattern(r"<atem:invoke\b[^>]*?\bname=\"(?P<name>[^\"]+)\">"),
        parameter=pattern(
            r"<atem:parameter\b[^>]*?\bname=\"[^\"]+\"[^>]*?>.*?</atem:parameter>", DOTALL
        ),
        parameter_end="</atem:parameter>",
        end="</atem:invoke>",
        shield="<atem:parameter",
    ),
    "kimi_k3": Tags(
        start=pattern(r"<\|open\|>call(?:(?!<\|sep\|>).)*<\|sep\|>", DOTALL),
        parameter=pattern(
            r"<\|open\|>(argument|json)(?:(?!<\|sep\|>).)*<\|sep\|>.*?<\|close\|>\1<\|sep\|>",
            DOTALL,
        ),
        parameter_end="<|close|>argument<|sep|>",
        end="<|close|>call<|sep|>",
        arguments_end="<|close|>json<|sep|>",
    ),
}


def call_reader(parser_type: str, parse_one: ParseOne) -> CallReader:
    """A reader for one block in the format of this mlx-lm parser."""
    if parser_type in _JSON_HEADS:
        return JsonReader(_JSON_HEADS[parser_type])
    if parser_type in _TAGS:
        return TagReader(_TAGS[parser_type], parse_one)
    return WholeReader()
