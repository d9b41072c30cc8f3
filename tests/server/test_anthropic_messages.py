"""How answers of the Anthropic dialect are worded: pieces in, blocks and events out."""

import json
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.core import FinishReason, SampledToken
from tbcluster.errors import StageLostError
from tbcluster.server.anthropic.messages import Envelope, MessageWriter, message_body
from tbcluster.server.deltas import Choice, Delta, Finish, Usage

USAGE = Usage(num_prompt=10, num_cached=4, num_generated=7, num_reasoning=2)
ENDED = Finish(FinishReason.STOP, False)
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)

CALLED: list[Piece] = [
    Reasoning("hm"),
    Reasoning("m"),
    Text("I "),
    Text("look"),
    CallStart(0, "call_a", "find"),
    CallArguments(0, '{"a'),
    CallArguments(0, '": 1}'),
    CallStart(1, "call_b", "stop"),
    CallArguments(1, "{}"),
]
texts = st.text(max_size=4)
pieces_of_an_answer = st.lists(
    st.one_of(
        st.builds(Text, texts),
        st.builds(Reasoning, texts),
        st.just("call"),
    ),
    max_size=8,
)


def deltas(pieces: list[Piece], finish: Finish = ENDED) -> list[Delta]:
    """Two pieces to a token, and the end with a token of its own."""
    tokens = [pieces[i : i + 2] for i in range(0, len(pieces), 2)]
    ongoing = [Delta(0, token, (SampledToken(5),), None) for token in tokens]
    return [*ongoing, Delta(0, [], (SampledToken(5),), finish)]


def envelope(max_tokens: int = 7, *, shows_thinking: bool = True) -> Envelope:
    return Envelope("m", max_tokens, shows_thinking, "msg_1")


def events(pieces: list[Piece], finish: Finish = ENDED, **fields: Any) -> list[dict[str, Any]]:
    """The stream's events, whose names are checked on the way."""
    writer = MessageWriter(envelope(**fields), USAGE)
    sent = b"".join(writer.opening())
    for delta in deltas(pieces, finish):
        sent += b"".join(writer.delta(delta))
    sent += b"".join(writer.closing(USAGE))
    bodies = []
    for part in sent.decode().removesuffix("\n\n").split("\n\n"):
        name, data = part.split("\n", 1)
        bodies.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {bodies[-1]['type']}"
    return bodies


def whole(pieces: list[Piece], finish: Finish = ENDED, **fields: Any) -> dict[str, Any]:
    choice = Choice()
    for delta in deltas(pieces, finish):
        choice.add(delta)
    return message_body(envelope(**fields), [choice], USAGE)


def test_events_in_their_order() -> None:
    kinds = [event["type"] for event in events(CALLED)]
    assert kinds == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_delta",  # the signature
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_blocks_of_a_whole_answer() -> None:
    assert whole(CALLED)["content"] == [
        {"type": "thinking", "thinking": "hmm", "signature": "tbcluster"},
        {"type": "text", "text": "I look"},
        {"type": "tool_use", "id": "call_a", "name": "find", "input": {"a": 1}},
        {"type": "tool_use", "id": "call_b", "name": "stop", "input": {}},
    ]


def test_token_counts() -> None:
    usage = whole(CALLED)["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (6, 4)
    assert usage["output_tokens"] == 7
    assert usage["output_tokens_details"] == {"thinking_tokens": 2}
    assert events(CALLED)[-2]["usage"] == usage


def test_why_an_answer_ended() -> None:
    def reason(finish: Finish, max_tokens: int = 7) -> tuple[str, str | None]:
        body = whole([Text("a")], finish, max_tokens=max_tokens)
        delta = events([Text("a")], finish, max_tokens=max_tokens)[-2]["delta"]
        assert delta == {key: body[key] for key in delta}
        return body["stop_reason"], body["stop_sequence"]

    assert reason(ENDED) == ("end_turn", None)
    assert reason(Finish(FinishReason.STOP, False, "x")) == ("stop_sequence", "x")
    assert reason(Finish(FinishReason.STOP, True)) == ("tool_use", None)
    assert reason(Finish(FinishReason.LENGTH, False)) == ("max_tokens", None)
    # Fewer tokens than were asked for: the context has ended.
    cut = reason(Finish(FinishReason.LENGTH, False), max_tokens=8)
    assert cut == ("model_context_window_exceeded", None)


def test_thoughts_that_are_not_to_be_shown() -> None:
    content = whole(CALLED, shows_thinking=False)["content"]
    assert content[0] == {"type": "thinking", "thinking": "", "signature": "tbcluster"}
    sent = events(CALLED, shows_thinking=False)
    assert not any(event.get("delta", {}).get("thinking") for event in sent)
    assert content[1:] == whole(CALLED)["content"][1:]


def test_a_call_that_was_cut_off_holds_what_is_complete() -> None:
    cut = [CallStart(0, "c", "f"), CallArguments(0, '{"a": 1, "b": "x')]
    finish = Finish(FinishReason.LENGTH, False)
    assert whole(cut, finish)["content"][0]["input"] == {"a": 1}
    assert whole(cut, finish)["stop_reason"] == "max_tokens"


def test_arguments_that_are_no_json() -> None:
    for text in ('{"a": tru}', '{"a": NaN}', "[1]", "{" * 1000 + '"a'):
        called: list[Piece] = [CallStart(0, "c", "f"), CallArguments(0, text)]
        assert whole(called)["content"][0]["input"] == {"INVALID_JSON": text}


def test_an_answer_without_anything() -> None:
    assert whole([])["content"] == []
    kinds = [event["type"] for event in events([])]
    assert kinds == ["message_start", "ping", "message_delta", "message_stop"]


def test_an_error_inside_a_stream() -> None:
    sent = b"".join(MessageWriter(envelope(), USAGE).failure(StageLostError("gone")))
    assert sent.startswith(b"event: error\n")
    body = json.loads(sent.decode().split("data: ", 1)[1])
    assert body["type"] == "error"
    assert body["error"] == {"type": "overloaded_error", "message": "gone"}


@given(pieces_of_an_answer)
def test_a_stream_makes_what_the_whole_answer_is(shapes: list[Any]) -> None:
    pieces: list[Piece] = []
    num_calls = 0
    for shape in shapes:
        if shape == "call":
            pieces += [CallStart(num_calls, f"call_{num_calls}", "f")]
            pieces += [CallArguments(num_calls, '{"a":'), CallArguments(num_calls, " 1}")]
            num_calls += 1
        else:
            pieces.append(shape)
    assert accumulated(events(pieces)) == Message.model_validate(whole(pieces)).to_dict()


def accumulated(sent: list[dict[str, Any]]) -> dict[str, object]:
    """What Anthropic's own client makes of a stream."""
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for body in sent:
        if body["type"] != "ping":
            event = EVENT.validate_python(body)
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    return Message.model_validate(snapshot.to_dict()).to_dict()
