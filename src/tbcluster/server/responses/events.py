"""How answers of the Responses API are worded, whole and streamed."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tbcluster.errors import TbclusterError
from tbcluster.server.deltas import Choice, Delta, Finish, Usage
from tbcluster.server.problems import Dialect, error_event
from tbcluster.server.responses.envelope import Envelope
from tbcluster.server.responses.output import Event, OutputItems
from tbcluster.server.sse import MEDIA_TYPE, comment, event

Keep = Callable[[dict[str, Any]], None]


def response_body(
    envelope: Envelope, output: OutputItems, choices: list[Choice], usage: Usage
) -> dict[str, Any]:
    """The whole response, of the one choice there is."""
    (choice,) = choices
    for delta in choice.deltas:
        for _ in output.add(delta):
            pass
    assert choice.finish is not None  # noqa: S101 - the choice is finished
    return envelope.finished(output.items, choice.finish, usage)


class ResponseWriter:
    """A streamed response: what is begun is said to be, in order, until all is done.

    Args:
        keep: Is given the finished response.
    """

    media_type = MEDIA_TYPE

    def __init__(self, envelope: Envelope, output: OutputItems, keep: Keep) -> None:
        self._envelope = envelope
        self._output = output
        self._keep = keep
        self._num_events = 0
        self._finish: Finish | None = None

    def waiting(self, doing: str) -> Iterator[bytes]:
        """A comment."""
        yield comment(doing)

    def opening(self) -> Iterator[bytes]:
        """The response, without anything of its answer."""
        body = {"response": self._envelope.running()}
        yield from self._numbered([("response.created", body), ("response.in_progress", body)])

    def delta(self, delta: Delta) -> Iterator[bytes]:
        """What a token adds to the items."""
        self._finish = delta.finish
        yield from self._numbered(self._output.add(delta))

    def closing(self, usage: Usage) -> Iterator[bytes]:
        """The response with the whole answer."""
        assert self._finish is not None  # noqa: S101 - the last token has come
        body = self._envelope.finished(self._output.items, self._finish, usage)
        self._keep(body)
        yield from self._numbered([(f"response.{body['status']}", {"response": body})])

    def failure(self, error: TbclusterError) -> Iterator[bytes]:
        """The response with what was finished, and the error. Clients want to hear first that it
        was created."""
        if self._num_events == 0:
            yield from self.opening()
        reason = error_event(Dialect.OPENAI, error)["error"]
        body = self._envelope.failed(self._output.items, reason)
        yield from self._numbered([("response.failed", {"response": body})])

    def _numbered(self, events: Iterable[Event]) -> Iterator[bytes]:
        for name, fields in events:
            yield event({"type": name, "sequence_number": self._num_events, **fields}, name)
            self._num_events += 1
