"""One block of tool calls: what may be passed on while it is generated, and what it comes to."""

import json
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tbcluster.answers.call_readers import Began, CallReader, Ended, Event, Failed, Grew
from tbcluster.answers.parsing import ParsedCall, to_json
from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Text

# What may follow a block's last call without meaning anything.
_CLOSING = " \t\r\n}],"


@dataclass(slots=True)
class _Call:
    """A call that has been passed on, as far as it has."""

    index: int
    name: str
    text: str = ""
    is_complete: bool = False
    has_failed: bool = False

    def rest(self, arguments: dict[str, Any]) -> str | None:
        """What completes it to `arguments`; None if what was passed on is not their beginning."""
        if self.is_complete:
            return "" if _loaded(self.text) == arguments else None
        if self.text and _loaded(self.text + "}") == arguments:
            return "}"
        whole = to_json(arguments)
        return whole[len(self.text) :] if whole.startswith(self.text) else None


class CallBlock:
    """The text between a tool call's markers.

    Args:
        first_index: The index of its first call.
        parse: mlx-lm's parser for the whole block; raises ValueError.
        markers: What stood before the block, and what stands after it.
    """

    def __init__(
        self,
        first_index: int,
        reader: CallReader,
        parse: Callable[[str], list[ParsedCall]],
        markers: tuple[str, str],
    ) -> None:
        self._next_index = first_index
        self._reader = reader
        self._parse = parse
        self._markers = markers
        self._text = ""
        self._calls: list[_Call] = []
        self._end_of_calls = 0

    @property
    def num_begun(self) -> int:
        """How many calls have been passed on, complete or not."""
        return len(self._calls)

    @property
    def num_calls(self) -> int:
        """How many complete calls have been passed on."""
        return sum(call.is_complete for call in self._calls)

    def feed(self, text: str) -> Iterator[Piece]:
        """More of the block's text."""
        self._text += text
        yield from self._pass_on(self._reader.read(self._text))

    def close(self, *, has_end: bool) -> Iterator[Piece]:
        """The block is complete. What is no call comes out as text.

        Args:
            has_end: Whether its end marker was generated, or only the answer's end.
        """
        try:
            parsed = self._parse(self._text)
        except ValueError:
            yield from self._raw(self._markers[1] if has_end else "")
            return
        yield from self._complete(parsed)
        if not self._markers[1]:
            yield from self._rest()

    def cut(self) -> Iterator[Piece]:
        """The answer was cut off: a call that has begun stays a part of one."""
        yield from self._pass_on(self._reader.cut(self._text))
        if not self._calls:
            yield from self._raw("")

    def _pass_on(self, events: Iterator[Event]) -> Iterator[Piece]:
        for event in events:
            match event:
                case Began(name, call_id):
                    yield self._begin(name, call_id)
                case Grew(text) if text:
                    yield self._grow(self._calls[-1], text)
                case Ended(position):
                    self._end(self._calls[-1], position)
                case Failed():
                    self._calls[-1].has_failed = True

    def _begin(self, name: str, call_id: str | None) -> CallStart:
        self._calls.append(_Call(self._next_index, name))
        self._next_index += 1
        return CallStart(self._calls[-1].index, call_id or new_call_id(), name)

    def _grow(self, call: _Call, text: str) -> CallArguments:
        call.text += text
        return CallArguments(call.index, text)

    def _end(self, call: _Call, position: int) -> None:
        if isinstance(_loaded(call.text), dict):
            call.is_complete = True
            self._end_of_calls = position
        else:
            call.has_failed = True

    def _complete(self, parsed: list[ParsedCall]) -> Iterator[Piece]:
        begun = deque(call for call in self._calls if not call.has_failed)
        for wanted in parsed:
            call = begun[0] if begun else None
            rest = call.rest(wanted.arguments) if call and call.name == wanted.name else None
            if call is None or rest is None:
                yield self._begin(wanted.name, wanted.call_id)
                call, rest = self._calls[-1], to_json(wanted.arguments)
            else:
                begun.popleft()
            if rest:
                yield self._grow(call, rest)
            call.is_complete = True

    def _raw(self, end: str) -> Iterator[Piece]:
        """What comes after the last complete call, or all of the block."""
        if not self.num_calls:
            yield Text(self._markers[0] + self._text + end)
        else:
            yield from self._rest()

    def _rest(self) -> Iterator[Piece]:
        rest = self._text[self._end_of_calls :]
        if self._end_of_calls and rest.strip(_CLOSING):
            yield Text(rest)


def new_call_id() -> str:
    """An id for a call whose format has none."""
    return f"call_{secrets.token_hex(12)}"


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
