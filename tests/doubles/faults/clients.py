"""Eight kinds of streamed requests over HTTP, and a client that reads them."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import httpx

# Between two lines of a stream, comments included: the server says something more often.
SILENCE_S = 45.0
CONNECT_S = 5.0
SHARED = list(range(10, 90))
LONG = [2 + at % 290 for at in range(700)]
# It never ends before it is ended.
ENDLESS_JSON = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 6}, "n": {"type": "integer"}},
        "required": ["name", "n"],
        "additionalProperties": False,
    },
    "minItems": 100_000,
}
PENALTIES = {"repetition_penalty": 1.3, "frequency_penalty": 0.5}
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


class StreamBroken(Exception):  # noqa: N818 - it is no error of the client's
    """A stream ended before its answer did; `status` is HTTP's, 0 where there was none."""

    def __init__(self, what: str, status: int = 0) -> None:
        super().__init__(what)
        self.status = status


class StreamSilent(StreamBroken):
    """Not a byte came for `SILENCE_S`: it hangs."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its name, where it goes and what it says."""

    name: str
    path: str
    body: dict[str, Any]


class Piece(NamedTuple):
    """What one event adds to an answer.

    Attributes:
        logprobs: Of the tokens whose text is out with it, where they are told: two tokens that are
            parts of characters look alike, and so does a token that comes of other caches.
    """

    text: str
    logprobs: tuple[float, ...]


def eight(model: str, num_tokens: int) -> list[Asked]:
    """Greedy, sampled with seeds, with penalties, held to JSON; long prompts, and some that begin
    alike. Each answer has so many tokens, and is the same each time."""
    free = {"model": model, "max_tokens": num_tokens, "stream": True, "ignore_eos": True}
    # One event for each token, also for those that are part of a character.
    free["logprobs"] = 0
    kinds = {
        "greedy": {"prompt": [5, 6, 7], "temperature": 0},
        "greedy, long prompt": {"prompt": LONG, "temperature": 0},
        "sampled": {"prompt": [*SHARED, 100], "temperature": 0.9, "seed": 11},
        "sampled, filtered": {"prompt": [*SHARED, 101], "temperature": 1, "top_p": 0.9, "seed": 12},
        "sampled, penalties": {"prompt": [9, 8, 7], "temperature": 0.7, "seed": 13, **PENALTIES},
        "greedy, penalties": {"prompt": [20, 21], "temperature": 0, **PENALTIES},
    }
    schema = {"name": "list", "schema": ENDLESS_JSON, "strict": True}
    held = {
        "model": model,
        "messages": [{"role": "user", "content": "List."}],
        "max_completion_tokens": num_tokens,
        "stream": True,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    return [
        *(Asked(name, COMPLETIONS, {**free, **kind}) for name, kind in kinds.items()),
        Asked("JSON", CHAT, {**held, "temperature": 0}),
        Asked("JSON, sampled", CHAT, {**held, "temperature": 1, "seed": 14}),
    ]


def pieces(http: httpx.Client, asked: Asked) -> Iterator[Piece | None]:
    """An answer as it comes; None for each comment.

    Raises:
        StreamSilent: It hangs.
        StreamBroken: It did not come to its end.
    """
    try:
        with http.stream("POST", asked.path, json=asked.body) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
                raise StreamBroken(response.text, response.status_code)
            yield from _pieces(response)
    except httpx.ReadTimeout as error:
        timeouts: dict[str, float] = error.request.extensions["timeout"]
        raise StreamSilent(f"nothing came for {timeouts['read']:g} s") from error
    except httpx.HTTPError as error:
        raise StreamBroken(f"{type(error).__name__}: {error}") from error


def _pieces(response: httpx.Response) -> Iterator[Piece | None]:
    has_finished = False
    for line in response.iter_lines():
        if line.startswith(":"):
            yield None
        if not line.startswith("data: "):
            continue
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            if not has_finished:
                raise StreamBroken("[DONE] came without a finish reason", response.status_code)
            return
        event = json.loads(data)
        if "error" in event:
            raise StreamBroken(json.dumps(event["error"]), response.status_code)
        for choice in event["choices"]:
            has_finished = has_finished or choice["finish_reason"] is not None
            text = choice.get("text") or choice.get("delta", {}).get("content") or ""
            yield Piece(text, tuple((choice.get("logprobs") or {}).get("token_logprobs", ())))
    raise StreamBroken("the connection was closed before [DONE]", response.status_code)


def new_http(url: str) -> httpx.Client:
    """A client that notices when nothing at all comes any more."""
    return httpx.Client(base_url=url, timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S))


@dataclass
class RunningStream:
    """One request in a thread of its own, on the node where `inside` takes it.

    Attributes:
        text: What came so far; `times` says when each piece did, by the monotonic clock.
        broken: Why it ended early, if it did.
    """

    url: str
    asked: Asked
    inside: AbstractContextManager[None]
    text: str = ""
    times: list[float] = field(default_factory=list)
    broken: StreamBroken | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self.asked.name, daemon=True)
        self._thread.start()

    def finish(self, deadline_s: float) -> str:
        """Wait for its end, and give all of it.

        Raises:
            AssertionError: It does not end, or ended early.
        """
        self._thread.join(deadline_s)
        assert not self._thread.is_alive(), (
            f"{self.asked.name} hangs after {len(self.times)} pieces"
        )
        assert self.broken is None, f"{self.asked.name}: {self.broken}"
        return self.text

    @property
    def longest_gap_s(self) -> float:
        """The longest wait between two pieces."""
        times = self.times
        return max((later - one for one, later in pairwise(times)), default=0.0)

    def _run(self) -> None:
        with self.inside, new_http(self.url) as http:
            try:
                for piece in pieces(http, self.asked):
                    if piece is not None:
                        self.text += piece.text
                        self.times.append(time.monotonic())
            except StreamBroken as broken:
                self.broken = broken
