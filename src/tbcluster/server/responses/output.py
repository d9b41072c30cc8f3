"""A response's output items and the events that tell of them, as its tokens come. Pure."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from tbcluster.answers.pieces import CallArguments, CallStart, Reasoning, Text
from tbcluster.core import FinishReason, SampledToken
from tbcluster.server.deltas import Delta, Finish
from tbcluster.server.responses.store import Item

# An event's type and its other fields, but for the number in the sequence.
Event = tuple[str, dict[str, Any]]
Logprobs = list[dict[str, Any]]


class _OpenItem(Protocol):
    """An item that is still growing. Each event it gives lacks the item's place."""

    def opening(self) -> Iterator[Event]:
        """After the item was added."""
        ...

    def closing(self) -> Iterator[Event]:
        """Before the item is done."""
        ...

    def item(self, status: str) -> Item:
        """The item as it is now."""
        ...


class _Message:
    """Text for the user."""

    def __init__(self, item_id: str) -> None:
        self._id = item_id
        self._text = ""
        self._logprobs: Logprobs = []

    def opening(self) -> Iterator[Event]:
        yield _content("response.content_part.added", part=self._part())

    def add(self, text: str, logprobs: Logprobs) -> Event:
        self._text += text
        self._logprobs += logprobs
        return _content("response.output_text.delta", delta=text, logprobs=logprobs)

    def closing(self) -> Iterator[Event]:
        yield _content("response.output_text.done", text=self._text, logprobs=self._logprobs)
        yield _content("response.content_part.done", part=self._part())

    def item(self, status: str) -> Item:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [] if status == "in_progress" else [self._part()],
        }

    def _part(self) -> dict[str, Any]:
        return {
            "type": "output_text",
            "text": self._text,
            "annotations": [],
            "logprobs": list(self._logprobs),
        }


class _Thoughts:
    """Reasoning."""

    def __init__(self, item_id: str) -> None:
        self._id = item_id
        self._text = ""

    def opening(self) -> Iterator[Event]:
        yield _content("response.content_part.added", part=self._part())

    def add(self, text: str) -> Event:
        self._text += text
        return _content("response.reasoning_text.delta", delta=text)

    def closing(self) -> Iterator[Event]:
        yield _content("response.reasoning_text.done", text=self._text)
        yield _content("response.content_part.done", part=self._part())

    def item(self, status: str) -> Item:
        return {
            "id": self._id,
            "type": "reasoning",
            "status": status,
            "summary": [],
            "content": [] if status == "in_progress" else [self._part()],
        }

    def _part(self) -> dict[str, Any]:
        return {"type": "reasoning_text", "text": self._text}


class _Call:
    """A function call."""

    def __init__(self, item_id: str, start: CallStart) -> None:
        self._id = item_id
        self._start = start
        self._arguments = ""

    def opening(self) -> Iterator[Event]:
        return iter(())

    def add(self, text: str) -> Event:
        self._arguments += text
        return "response.function_call_arguments.delta", {"delta": text}

    def closing(self) -> Iterator[Event]:
        done = {"name": self._start.name, "arguments": self._arguments}
        yield "response.function_call_arguments.done", done

    def item(self, status: str) -> Item:
        return {
            "id": self._id,
            "type": "function_call",
            "status": status,
            "call_id": self._start.call_id,
            "name": self._start.name,
            "arguments": self._arguments,
        }


class OutputItems:
    """Makes items of a choice's deltas; the events are what a stream says on the way.

    Args:
        new_id: Makes an item's id from its type.
        logprobs: Logprobs of tokens as OpenAI writes them, or None to leave them out.
    """

    def __init__(
        self,
        new_id: Callable[[str], str],
        logprobs: Callable[[Sequence[SampledToken]], Logprobs] | None = None,
    ) -> None:
        self.items: list[Item] = []
        self._new_id = new_id
        self._logprobs = logprobs
        # Sampled since the last piece: their text was held back, or they have none.
        self._unheard: list[SampledToken] = []
        self._open: _OpenItem | None = None
        self._open_id = ""

    def add(self, delta: Delta) -> Iterator[Event]:
        """What a token adds; the last one ends all items."""
        self._unheard += delta.sampled
        for piece in delta.pieces:
            match piece:
                case Text(text):
                    yield from self._say(text)
                case Reasoning(text):
                    yield from self._think(text)
                case CallStart():
                    yield from self._close()
                    call_id = self._new_id("function_call")
                    yield from self._begin(call_id, _Call(call_id, piece))
                case CallArguments(_, text):
                    yield from self._argue(text)
            self._unheard.clear()
        if delta.finish is not None:
            yield from self._finish(delta.finish)

    def _say(self, text: str) -> Iterator[Event]:
        if not isinstance(self._open, _Message):
            yield from self._close()
            item_id = self._new_id("message")
            yield from self._begin(item_id, _Message(item_id))
        assert isinstance(self._open, _Message)  # noqa: S101 - just begun
        logprobs = self._logprobs(self._unheard) if self._logprobs else []
        yield self._placed(self._open.add(text, logprobs))

    def _think(self, text: str) -> Iterator[Event]:
        if not isinstance(self._open, _Thoughts):
            yield from self._close()
            item_id = self._new_id("reasoning")
            yield from self._begin(item_id, _Thoughts(item_id))
        assert isinstance(self._open, _Thoughts)  # noqa: S101 - just begun
        yield self._placed(self._open.add(text))

    def _argue(self, text: str) -> Iterator[Event]:
        assert isinstance(self._open, _Call)  # noqa: S101 - arguments follow their call's start
        yield self._placed(self._open.add(text))

    def _finish(self, finish: Finish) -> Iterator[Event]:
        is_cut = finish.reason is FinishReason.LENGTH
        yield from self._close("incomplete" if is_cut else "completed")
        # Whoever reads the first message finds one, even if the model had nothing to say.
        if not is_cut and not any(item["type"] != "reasoning" for item in self.items):
            yield from self._say("")
            yield from self._close()

    def _begin(self, item_id: str, opened: _OpenItem) -> Iterator[Event]:
        self._open, self._open_id = opened, item_id
        added = {"output_index": len(self.items), "item": opened.item("in_progress")}
        yield "response.output_item.added", added
        for event in opened.opening():
            yield self._placed(event)

    def _close(self, status: str = "completed") -> Iterator[Event]:
        if self._open is None:
            return
        for event in self._open.closing():
            yield self._placed(event)
        item = self._open.item(status)
        yield "response.output_item.done", {"output_index": len(self.items), "item": item}
        self.items.append(item)
        self._open = None

    def _placed(self, event: Event) -> Event:
        name, fields = event
        return name, {"item_id": self._open_id, "output_index": len(self.items), **fields}


def _content(name: str, **fields: Any) -> Event:
    return name, {"content_index": 0, **fields}
