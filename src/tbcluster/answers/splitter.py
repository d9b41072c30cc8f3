"""Splits an answer's text into text, reasoning and tool calls while it is generated."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mlx_lm.generate import TextStateMachine

from tbcluster.answers.call_block import CallBlock
from tbcluster.answers.pieces import CallArguments, Piece, Reasoning, Text
from tbcluster.core import FinishReason

_BLANKS = " \t\r\n"
TOOL_CALLS = "tool_calls"


class AnswerSplitter:
    """One answer's. Templates put blanks around reasoning and tool calls: these are left out.

    Args:
        machine: mlx-lm's state machine for the format.
        initial: The state that the prompt leaves it in.
        new_block: Makes a block of tool calls from its first call's index; None where tools were
            not asked for.
        tool_start: What a block of tool calls begins with.
        splits_reasoning: Otherwise reasoning is text too.
        is_constrained: Whether the answer has to match a grammar: once it has begun, what looks
            like a marker is a part of it (of a text in JSON, say).
    """

    def __init__(
        self,
        machine: TextStateMachine,
        initial: str,
        new_block: Callable[[int], CallBlock] | None,
        tool_start: str = "",
        splits_reasoning: bool = True,
        is_constrained: bool = False,
    ) -> None:
        self._machine: Any = machine.make_state(initial)
        self._state = initial
        self._new_block = new_block
        self._tool_start = tool_start
        self._text_states = {"normal", "tool"} | (set() if splits_reasoning else {"reasoning"})
        self._is_constrained = is_constrained
        self._is_all_text = False
        self._block: CallBlock | None = None
        self._num_begun = 0
        self._num_done = 0
        self._text = _Trimmed()
        self._reasoning = _Trimmed(skips=True)
        # What a format writes between messages; it counts only if nothing else comes.
        self._header = ""
        self._reason: FinishReason | None = None

    @property
    def num_calls(self) -> int:
        """How many complete tool calls have come."""
        return self._num_done + (self._block.num_calls if self._block else 0)

    @property
    def finish_word(self) -> str | None:
        """How the answer ended, in OpenAI's words; None before `finish`."""
        if self._reason is FinishReason.STOP and self.num_calls:
            return TOOL_CALLS
        return self._reason

    def feed(self, text: str) -> list[Piece]:
        """What the next part of the answer's text makes certain."""
        if self._is_all_text:
            return _joined(self._take(text))
        return _joined(self._until_begun(text) if self._is_constrained else self._split(text))

    def finish(self, reason: FinishReason) -> list[Piece]:
        """What was still held back. Nothing that was generated is lost: a call that was not
        finished comes out as far as it has been read, or else as text."""
        self._reason = reason
        self._machine, held, _ = TextStateMachine.flush(self._machine)
        return _joined([*self._take(held), *self._last(reason)])

    def _split(self, text: str) -> Iterator[Piece]:
        self._machine, segments = TextStateMachine.split(self._machine, text)
        yield from self._pieces(segments)

    def _until_begun(self, text: str) -> Iterator[Piece]:
        """Character by character, so that no marker behind the answer's beginning is taken out."""
        for place, char in enumerate(text, start=1):
            yield from self._split(char)
            if self._state == "normal" and not self._text.is_new:
                self._is_all_text = True
                self._machine, held, _ = TextStateMachine.flush(self._machine)
                yield from self._take(held + text[place:])
                return

    def _pieces(self, segments: list[tuple[str, str]]) -> Iterator[Piece]:
        for number, (state, text) in enumerate(segments):
            if number:
                yield from self._change(state)
            yield from self._take(text)

    def _change(self, state: str) -> Iterator[Piece]:
        """A marker has been passed."""
        if self._block is not None:
            yield from self._end_block(self._block.close(has_end=True))
        elif self._state == "reasoning" and state != "tool":
            self._reasoning.drop()
            self._text.drop()
        self._state = state
        self._header = ""
        if state == "reasoning":
            self._reasoning.drop()
            self._text.drop()
        elif state == "tool" and self._new_block is not None:
            self._block = self._new_block(self._num_begun)
        elif state == "tool":
            yield from self._plain(self._tool_start)

    def _take(self, text: str) -> Iterator[Piece]:
        if self._block is not None:
            yield from self._calls(self._block.feed(text))
        elif self._state in self._text_states:
            yield from self._plain(text)
        elif self._state == "reasoning":
            if kept := self._reasoning.add(text):
                yield Reasoning(kept)
        else:
            self._header += text

    def _plain(self, text: str) -> Iterator[Piece]:
        if kept := self._text.add(text):
            yield Text(kept)

    def _calls(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        for piece in pieces:
            match piece:
                case Text(text):
                    yield from self._plain(text)
                case _:
                    self._text.drop()
                    self._reasoning.drop()
                    yield piece

    def _end_block(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        yield from self._calls(pieces)
        if self._block is not None:
            self._num_begun += self._block.num_begun
            self._num_done += self._block.num_calls
            self._block = None

    def _last(self, reason: FinishReason) -> Iterator[Piece]:
        if self._block is not None:
            was_cut = reason is FinishReason.LENGTH
            ending = self._block.cut() if was_cut else self._block.close(has_end=False)
            yield from self._end_block(ending)
        if self._state == "reasoning" and (held := self._reasoning.flush()):
            yield Reasoning(held)
        if self._header and self._text.is_new and self._reasoning.is_new and not self._num_begun:
            yield from self._plain(self._header)
        if held := self._text.flush():
            yield Text(held)


class _Trimmed:
    """Holds blanks back until it is known what follows them.

    Args:
        skips: Whether leading blanks are left out.
    """

    def __init__(self, *, skips: bool = False) -> None:
        self.is_new = True
        self._skips = skips
        self._held = ""

    def add(self, text: str) -> str:
        """What may be passed on now."""
        if self._skips:
            text = text.lstrip(_BLANKS)
        if not text:
            return ""
        text = self._held + text
        kept = text.rstrip(_BLANKS)
        self._held = text[len(kept) :]
        if kept:
            self.is_new = self._skips = False
        return kept

    def drop(self) -> None:
        """Leave out what is held and the blanks that follow."""
        self._held = ""
        self._skips = True

    def flush(self) -> str:
        """What is held, at the end."""
        held, self._held = self._held, ""
        return held


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbours of one kind as one."""
    joined: list[Piece] = []
    for piece in pieces:
        match (joined[-1] if joined else None), piece:
            case Text(before), Text(text):
                joined[-1] = Text(before + text)
            case Reasoning(before), Reasoning(text):
                joined[-1] = Reasoning(before + text)
            case CallArguments(index, before), CallArguments(same, text) if index == same:
                joined[-1] = CallArguments(index, before + text)
            case _:
                joined.append(piece)
    return joined
