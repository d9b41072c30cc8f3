"""The order of a response's events, and that they tell the whole answer."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.core import FinishReason, SampledToken, SamplingParams
from tbcluster.errors import QueueFullError, StageLostError
from tbcluster.server.deltas import Choice, Delta, Finish, Usage
from tbcluster.server.responses.envelope import Envelope, request_fields
from tbcluster.server.responses.events import ResponseWriter, response_body
from tbcluster.server.responses.output import Logprobs, OutputItems
from tbcluster.server.responses.schemas import ResponsesRequest

STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
STOP = Finish(FinishReason.STOP, has_calls=False)
CUT = Finish(FinishReason.LENGTH, has_calls=False)
USAGE = Usage(num_prompt=7, num_cached=3, num_generated=5, num_reasoning=2)


def logprobs(sampled: Any) -> Logprobs:
    return [
        {"token": str(item.token), "logprob": -1.0, "bytes": [], "top_logprobs": []}
        for item in sampled
    ]


def deltas(pieces: list[list[Piece]], finish: Finish = STOP) -> list[Delta]:
    """One for each token's pieces; tokens are numbered."""
    last = len(pieces) - 1
    return [
        Delta(0, group, (SampledToken(index, -1.0),), finish if index == last else None)
        for index, group in enumerate(pieces)
    ]


def output(*, shows_logprobs: bool = False) -> OutputItems:
    numbers = itertools.count()
    return OutputItems(lambda kind: f"{kind}-{next(numbers)}", logprobs if shows_logprobs else None)


def envelope() -> Envelope:
    body = ResponsesRequest.model_validate({"model": "m", "input": "hello"})
    return Envelope(request_fields(body, SamplingParams(temperature=0.5)), "resp_1", 1)


def parsed(chunks: Iterator[bytes]) -> list[dict[str, Any]]:
    """Events as they were sent; each names its type twice."""
    events = []
    for chunk in chunks:
        name, data = chunk.decode().removesuffix("\n\n").split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    return events


def streamed(given: list[Delta], *, shows_logprobs: bool = False) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    writer = ResponseWriter(envelope(), output(shows_logprobs=shows_logprobs), kept.append)
    events = parsed(writer.opening())
    for delta in given:
        events += parsed(writer.delta(delta))
    events += parsed(writer.closing(USAGE))
    assert kept == [events[-1]["response"]]
    return events


def whole(given: list[Delta], *, shows_logprobs: bool = False) -> dict[str, Any]:
    choice = Choice()
    for delta in given:
        choice.add(delta)
    return response_body(envelope(), output(shows_logprobs=shows_logprobs), [choice], USAGE)


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


OPENING = ["created", "in_progress"]
TEXT = ["output_item.added", "content_part.added", "output_text.delta"]
TEXT_END = ["output_text.done", "content_part.done", "output_item.done"]
THOUGHT = ["output_item.added", "content_part.added", "reasoning_text.delta"]
THOUGHT_END = ["reasoning_text.done", "content_part.done", "output_item.done"]
CALL = ["output_item.added", "function_call_arguments.delta"]
CALL_END = ["function_call_arguments.done", "output_item.done"]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([[Text("a")], [Text("b")], []], [*TEXT, "output_text.delta", *TEXT_END]),
        ([[Text("a"), Text("b")]], [*TEXT, "output_text.delta", *TEXT_END]),
        (
            [[Reasoning("a")], [], [Reasoning("b"), Text("c")]],
            [*THOUGHT, "reasoning_text.delta", *THOUGHT_END, *TEXT, *TEXT_END],
        ),
        (
            [
                [CallStart(0, "c1", "f")],
                [CallArguments(0, "{")],
                [CallArguments(0, "}")],
                [CallStart(1, "c2", "g"), CallArguments(1, "{}")],
            ],
            [*CALL, "function_call_arguments.delta", *CALL_END, *CALL, *CALL_END],
        ),
        (
            [[Text("a")], [CallStart(0, "c", "f"), CallArguments(0, "{}")], [Text("b")]],
            [*TEXT, *TEXT_END, *CALL, *CALL_END, *TEXT, *TEXT_END],
        ),
        # An answer of no words is an empty message still.
        ([[]], [*TEXT, *TEXT_END]),
        ([[Reasoning("a")], []], [*THOUGHT, *THOUGHT_END, *TEXT, *TEXT_END]),
    ],
)
def test_the_order_of_events(pieces: list[list[Piece]], expected: list[str]) -> None:
    events = streamed(deltas(pieces))
    assert names(events) == [*OPENING, *expected, "completed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_what_is_cut_off_is_incomplete() -> None:
    events = streamed(deltas([[Reasoning("hm")], [Text("a")]], CUT))
    assert names(events)[-1] == "incomplete"
    response = events[-1]["response"]
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["completed_at"] is None
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


def test_what_is_cut_off_before_its_first_word_has_no_message() -> None:
    assert [item["type"] for item in whole(deltas([[Reasoning("hm")]], CUT))["output"]] == [
        "reasoning"
    ]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StageLostError("stage 1 died"), "server_error"),
        (QueueFullError("the queue is full"), "rate_limit_exceeded"),
    ],
)
def test_a_failure_ends_the_stream(error: Any, code: str) -> None:
    kept: list[dict[str, Any]] = []
    writer = ResponseWriter(envelope(), output(), kept.append)
    given = deltas([[Reasoning("hm")], [Text("a")], [Text("b")]])[:2]
    events = [*parsed(writer.opening())]
    for delta in given:
        events += parsed(writer.delta(delta))
    events += parsed(writer.failure(error))
    assert names(events)[-1] == "failed"
    assert events[-1]["sequence_number"] == len(events) - 1
    response = events[-1]["response"]
    assert response["error"] == {"code": code, "message": str(error)}
    assert [item["type"] for item in response["output"]] == ["reasoning"]
    assert kept == []
    Response.model_validate(response)


def test_logprobs_go_with_the_text_they_made() -> None:
    # The second token's text was held back until the third; the last one ends the answer.
    given = deltas([[Reasoning("r")], [], [Text("ab")], [Text("c")], []])
    events = streamed(given, shows_logprobs=True)
    said = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [[entry["token"] for entry in event["logprobs"]] for event in said] == [
        ["1", "2"],
        ["3"],
    ]
    done = next(event for event in events if event["type"] == "response.output_text.done")
    part = events[-1]["response"]["output"][1]["content"][0]
    assert [entry["token"] for entry in part["logprobs"]] == ["1", "2", "3"]
    assert done["logprobs"] == part["logprobs"]


def test_usage_in_the_dialects_words() -> None:
    assert whole(deltas([[Text("a")]]))["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    }


@st.composite
def any_pieces(draw: st.DrawFn) -> list[list[Piece]]:
    """Pieces in any order that a splitter may give them in, token by token."""
    flat: list[Piece] = []
    for number, kind in enumerate(draw(st.lists(st.sampled_from("trc"), max_size=8))):
        text = draw(st.text(min_size=1, max_size=4))
        if kind == "c":
            index = sum(isinstance(piece, CallStart) for piece in flat)
            flat.append(CallStart(index, f"call-{number}", "f"))
            flat += [CallArguments(index, character) for character in text]
        else:
            flat.append(Text(text) if kind == "t" else Reasoning(text))
    groups: list[list[Piece]] = [[]]
    for piece in flat:
        if draw(st.booleans()):
            groups.append([])
        groups[-1].append(piece)
    return groups


@given(any_pieces(), st.sampled_from([STOP, CUT]), st.booleans())
def test_streams_tell_the_whole_answer(
    pieces: list[list[Piece]], finish: Finish, shows_logprobs: bool
) -> None:
    given = deltas(pieces, finish)
    events = streamed(given, shows_logprobs=shows_logprobs)
    for event in events:
        STREAM_EVENT.validate_python(event)
    response = {**events[-1]["response"], "completed_at": None}
    expected = {**whole(given, shows_logprobs=shows_logprobs), "completed_at": None}
    assert response == expected
    assert _rebuilt(events) == response["output"]
    flat = [piece for group in pieces for piece in group]
    said = "".join(piece.text for piece in flat if isinstance(piece, Text))
    assert Response.model_validate(response).output_text == said


def _rebuilt(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items that a client puts together: each delta has to come between its item's beginning
    and end, and one item is open at a time."""
    items: list[dict[str, Any]] = []
    is_open = False
    for event in events:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert not is_open
                assert event["item"]["status"] == "in_progress"
                items.append(event["item"])
                is_open = True
            case "content_part.added":
                items[-1]["content"].append(event["part"])
            case "output_text.delta":
                items[-1]["content"][0]["text"] += event["delta"]
                items[-1]["content"][0]["logprobs"] += event["logprobs"]
            case "reasoning_text.delta":
                items[-1]["content"][0]["text"] += event["delta"]
            case "function_call_arguments.delta":
                items[-1]["arguments"] += event["delta"]
            case "output_text.done" | "reasoning_text.done":
                assert event["text"] == items[-1]["content"][0]["text"]
            case "content_part.done":
                assert event["part"] == items[-1]["content"][0]
            case "function_call_arguments.done":
                assert event["arguments"] == items[-1]["arguments"]
            case "output_item.done":
                items[-1]["status"] = event["item"]["status"]
                assert event["item"] == items[-1]
                is_open = False
            case _:
                continue
        assert event["output_index"] == len(items) - 1
        assert event.get("item_id", items[-1]["id"]) == items[-1]["id"]
        assert is_open or event["type"] == "response.output_item.done"
    assert not is_open
    return items
