"""How answers of the Ollama dialect are worded: pieces in, lines out."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from ollama import ChatResponse, GenerateResponse

from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.core import FinishReason, SampledToken
from tbcluster.errors import StageLostError
from tbcluster.server.deltas import Choice, Delta, Finish, Usage
from tbcluster.server.ollama.answers import Envelope, LineWriter, answer_body
from tbcluster.server.token_texts import TokenTexts

USAGE = Usage(num_prompt=10, num_generated=7, started_at=1.0, first_token_at=1.5, last_token_at=3.5)
ENDED = Finish(FinishReason.STOP, False)
CALLED: list[Piece] = [
    Reasoning("hm"),
    Text("I look"),
    CallStart(0, "call_a", "find"),
    CallArguments(0, '{"a'),
    CallArguments(0, '": 1}'),
    CallStart(1, "call_b", "stop"),
]
CALLS = [
    {"id": "call_a", "function": {"index": 0, "name": "find", "arguments": {"a": 1}}},
    {"id": "call_b", "function": {"index": 1, "name": "stop", "arguments": {}}},
]


class OneWord:
    """A tokenizer with one word."""

    added_tokens_decoder: dict[int, str] = {}  # noqa: RUF012 - as tokenizers have it

    def convert_ids_to_tokens(self, _: int) -> str:
        return "word"


def envelope(shape: Any = "chat", *, shows_logprobs: bool = False) -> Envelope:
    return Envelope(shape, "m:latest", TokenTexts(OneWord()), shows_logprobs)


def deltas(pieces: list[Piece], finish: Finish = ENDED) -> list[Delta]:
    """Two pieces to a token, and the end with a token of its own."""
    token = SampledToken(5, -0.5, ((5, -0.5),))
    groups = [pieces[i : i + 2] for i in range(0, len(pieces), 2)]
    return [*(Delta(0, group, (token,), None) for group in groups), Delta(0, [], (token,), finish)]


def lines(pieces: list[Piece], finish: Finish = ENDED, **fields: Any) -> list[dict[str, Any]]:
    writer = LineWriter(envelope(**fields))
    sent = b"".join(writer.opening())
    for delta in deltas(pieces, finish):
        sent += b"".join(writer.delta(delta))
    sent += b"".join(writer.closing(USAGE))
    assert sent.endswith(b"\n")
    return [json.loads(line) for line in sent.splitlines()]


def whole(pieces: list[Piece], finish: Finish = ENDED, **fields: Any) -> dict[str, Any]:
    choice = Choice()
    for delta in deltas(pieces, finish):
        choice.add(delta)
    return answer_body(envelope(**fields), [choice], USAGE)


def test_a_whole_chat() -> None:
    body = whole(CALLED)
    assert body["message"] == {
        "role": "assistant",
        "content": "I look",
        "thinking": "hm",
        "tool_calls": CALLS,
    }
    assert (body["model"], body["done"], body["done_reason"]) == ("m:latest", True, "stop")
    ChatResponse.model_validate(body)


def test_a_whole_text() -> None:
    body = whole([Reasoning("hm"), Text("yes")], shape="generate")
    assert (body["response"], body["thinking"]) == ("yes", "hm")
    assert "message" not in body
    GenerateResponse.model_validate(body)


def test_counts_and_durations() -> None:
    for body in (whole(CALLED), lines(CALLED)[-1]):
        assert (body["prompt_eval_count"], body["eval_count"]) == (10, 7)
        assert body["prompt_eval_duration"] == 500_000_000
        assert body["eval_duration"] == 2_000_000_000
        assert body["load_duration"] == 0
        assert body["total_duration"] > 0


def test_calls_are_streamed_whole() -> None:
    messages = [line["message"] for line in lines(CALLED)]
    assert messages == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "I look"},
        {"role": "assistant", "content": "", "tool_calls": CALLS[:1]},
        {"role": "assistant", "content": "", "tool_calls": CALLS[1:]},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in lines(CALLED)] == [False] * 4 + [True]


def test_text_after_a_call_ends_it() -> None:
    called = [CallStart(0, "c", "f"), CallArguments(0, "{}"), Text("then")]
    (first, _) = (line["message"] for line in lines(called))
    assert first["content"] == "then"
    assert first["tool_calls"][0]["function"]["name"] == "f"


def test_an_answer_that_was_cut_off() -> None:
    cut = [CallStart(0, "c", "f"), CallArguments(0, '{"a": 1, "b": "x')]
    finish = Finish(FinishReason.LENGTH, False)
    assert whole(cut, finish)["done_reason"] == "length"
    assert lines(cut, finish)[-1]["done_reason"] == "length"
    (call,) = lines(cut, finish)[0]["message"]["tool_calls"]
    assert call["function"]["arguments"] == {"a": 1}


def test_logprobs_come_with_every_token() -> None:
    entry = {"token": "word", "logprob": -0.5, "bytes": list(b"word")}
    expected = {**entry, "top_logprobs": [entry]}
    assert whole(CALLED, shows_logprobs=True)["logprobs"] == [expected] * 4
    streamed = [line.get("logprobs", []) for line in lines(CALLED, shows_logprobs=True)]
    assert [entry for entries in streamed for entry in entries] == [expected] * 4
    assert "logprobs" not in whole(CALLED)


def test_an_error_inside_a_stream() -> None:
    (sent,) = LineWriter(envelope()).failure(StageLostError("gone"))
    assert sent == b'{"error":"gone"}\n'


@given(st.lists(st.one_of(st.builds(Text, st.text()), st.builds(Reasoning, st.text()))))
def test_lines_make_the_whole_answer(pieces: list[Piece]) -> None:
    messages = [line["message"] for line in lines(pieces)]
    message = whole(pieces)["message"]
    assert "".join(part["content"] for part in messages) == message["content"]
    thoughts = "".join(part.get("thinking", "") for part in messages)
    assert thoughts == message.get("thinking", "")
