"""When a stream says what: its opening, its tokens, that it waits, and how it ends."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.answers.pieces import Piece, Text
from tbcluster.core import FinishReason, SampledToken
from tbcluster.errors import StarvedError, TbclusterError
from tbcluster.server.anthropic.messages import Envelope as AnthropicEnvelope
from tbcluster.server.anthropic.messages import MessageWriter
from tbcluster.server.deltas import Delta, Finish, Usage
from tbcluster.server.ollama.answers import Envelope as OllamaEnvelope
from tbcluster.server.ollama.answers import LineWriter
from tbcluster.server.openai.chat import ChatWriter
from tbcluster.server.openai.completions import CompletionWriter
from tbcluster.server.openai.envelope import Envelope
from tbcluster.server.responses.envelope import Envelope as ResponseEnvelope
from tbcluster.server.responses.events import ResponseWriter
from tbcluster.server.responses.output import OutputItems
from tbcluster.server.streaming import MIN_SILENCE, Writer, events
from tests.doubles.virtual_time import run_virtually

KEEP_ALIVE_S = 5.0
COMMENT = b": recovering\n\n"
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
NO_TEXTS: Any = None


class Plain:
    """A dialect that says everything in one word."""

    media_type = "text/plain"

    def waiting(self, doing: str) -> list[bytes]:
        return [f"({doing})".encode()]

    def opening(self) -> list[bytes]:
        return [b"<"]

    def delta(self, delta: Delta) -> list[bytes]:
        return [piece.text.encode() for piece in delta.pieces if isinstance(piece, Text)]

    def closing(self, usage: Usage) -> list[bytes]:
        return [b">"]

    def failure(self, error: TbclusterError) -> list[bytes]:
        return [b"!"]


WRITERS: dict[str, Callable[[], Writer]] = {
    "chat": lambda: ChatWriter(Envelope("x-", "m", NO_TEXTS, False), 1, includes_usage=False),
    "completion": lambda: CompletionWriter(
        Envelope("x-", "m", NO_TEXTS, False), [""], includes_usage=False
    ),
    "response": lambda: ResponseWriter(
        ResponseEnvelope({}, "resp_1", 1), OutputItems(str), lambda _: None
    ),
    "anthropic": lambda: MessageWriter(AnthropicEnvelope("m", 9), Usage(1)),
    "ollama": lambda: LineWriter(OllamaEnvelope("chat", "m", NO_TEXTS, False)),
}


def token(text: str = "", *, is_last: bool = False) -> Delta:
    pieces: list[Piece] = [Text(text)] if text else []
    finish = Finish(FinishReason.STOP, False) if is_last else None
    return Delta(0, pieces, (SampledToken(1),), finish)


# What comes, each after so many seconds; None for silence, which is told each 5 seconds.
Coming = list[tuple[float, Delta | TbclusterError | None]]


def sent(
    writer: Writer, coming: Coming, *, first: Delta | None = None
) -> list[tuple[float, bytes]]:
    """What is sent, and when."""

    async def deltas() -> AsyncGenerator[Delta | None, None]:
        for after_s, delta in coming:
            await asyncio.sleep(after_s)
            if isinstance(delta, TbclusterError):
                raise delta
            yield delta

    async def work() -> list[tuple[float, bytes]]:
        clock = asyncio.get_running_loop().time
        stream = events(
            writer,
            deltas(),
            Usage(1),
            first=first,
            doing=lambda: "recovering",
            keep_alive_s=KEEP_ALIVE_S,
        )
        return [(clock(), part) async for part in stream]

    return run_virtually(work())


def test_a_stream_opens_with_its_first_token() -> None:
    parts = sent(Plain(), [(1, token("b")), (1, token("c", is_last=True))], first=token("a"))
    assert parts == [(0, b"<a"), (1, b"b"), (2, b"c"), (2, b">")]


def test_a_stream_that_began_without_one_opens_when_it_comes() -> None:
    parts = sent(Plain(), [(5, None), (5, None), (1, token("a", is_last=True))])
    waits = [(at, b"(recovering)") for at in (0, 5, 10)]
    assert parts == [*waits, (11, b"<a"), (11, b">")]


def test_tokens_that_say_nothing_are_silence_too() -> None:
    silent: Coming = [(1, token())] * 12
    parts = sent(Plain(), [*silent, (1, token("b", is_last=True))], first=token("a"))
    waits = [(at, b"(recovering)") for at in (5, 10)]
    assert parts == [(0, b"<a"), *waits, (13, b"b"), (13, b">")]


def test_what_is_told_a_moment_early_is_not_waited_for_twice() -> None:
    """Silence counts from a token's arrival, which is before its bytes leave."""
    parts = sent(Plain(), [(4.99, None), (5, token("b", is_last=True))], first=token("a"))
    assert parts[1] == (4.99, b"(recovering)")


@given(st.lists(st.tuples(st.sampled_from([0.1, 1, 4, 5]), st.sampled_from([None, "", "x"]))))
def test_nobody_is_told_to_wait_twice_within_the_interval(
    coming: list[tuple[float, str | None]],
) -> None:
    came: Coming = [(at, None if text is None else token(text)) for at, text in coming]
    parts = sent(Plain(), [*came, (0, token("z", is_last=True))], first=token("a"))
    before = -inf
    for at, part in parts:
        if part == b"(recovering)":
            assert at - before >= MIN_SILENCE * KEEP_ALIVE_S
        before = at
    text = b"".join(part for _, part in parts).replace(b"(recovering)", b"")
    assert text == b"<a" + b"x" * sum(said == "x" for _, said in coming) + b"z>"


@pytest.mark.parametrize("first", [None, token("a")])
def test_an_error_is_the_last_word(first: Delta | None) -> None:
    parts = sent(Plain(), [(1, StarvedError("no room"))], first=first)
    assert parts[-1] == (1, b"!")


@pytest.mark.parametrize("dialect", WRITERS)
def test_waiting_changes_nothing_but_what_clients_pass_over(dialect: str) -> None:
    coming: Coming = [(0, token("b")), (0, token("c", is_last=True))]
    waiting: Coming = [(5, None), (0, token("b")), (6, None), (0, token("c", is_last=True))]

    def shape(parts: list[tuple[float, bytes]]) -> list[list[str]]:
        """The fields of each object; ids and times differ from stream to stream."""
        whole = b"".join(part for _, part in parts).replace(PING, b"").decode()
        lines = [line.removeprefix("data: ") for line in whole.splitlines()]
        return [sorted(json.loads(line)) for line in lines if line.startswith("{")]

    undisturbed = sent(WRITERS[dialect](), coming, first=token("a"))
    paused = sent(WRITERS[dialect](), [(0, token("a")), *waiting], first=None)
    assert shape(paused) == shape(undisturbed) != []
    whole = b"".join(part for _, part in paused)
    num_told = {"anthropic": 1, "ollama": 0}.get(dialect, 3)
    assert whole.count(COMMENT) == num_told
    # One belongs to every message's opening.
    assert whole.count(PING) == (3 if dialect == "anthropic" else 0)


def test_a_message_is_the_first_event_of_its_stream() -> None:
    parts = [part for _, part in sent(WRITERS["anthropic"](), [(5, None), (5, token("a"))])]
    assert parts[:2] == [COMMENT, COMMENT]
    assert parts[2].startswith(b"event: message_start\n")


def test_a_response_is_created_before_it_fails() -> None:
    parts = sent(WRITERS["response"](), [(5, StarvedError("mini2 is missing"))])
    names = [line for _, part in parts for line in part.split(b"\n") if line.startswith(b"event")]
    assert names == [
        b"event: response.created",
        b"event: response.in_progress",
        b"event: response.failed",
    ]
    assert b"mini2 is missing" in parts[-1][1]
