"""Requests to a cluster, and when each of their tokens came."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from benchmarks.decode import Decode, decode_of
from tbcluster import Cluster
from tbcluster.core import Output, Request
from tbcluster.errors import TbclusterError

DEADLINE_S = 600.0
# More than any stream decodes before it is cancelled.
ENDLESS_TOKENS = 1500
# Tokens after which a stream counts as running: by then all decode together.
SETTLING_TOKENS = 3


def random_prompt(source: random.Random, num_tokens: int, vocab_size: int) -> list[int]:
    """Token ids without the special ones."""
    return [source.randrange(2, vocab_size) for _ in range(num_tokens)]


def plain_request(cluster: Cluster, prompt: Sequence[int], max_tokens: int) -> Request:
    """One that no end-of-text token ends early and no known prefix makes faster."""
    return endless(cluster.make_request(prompt, max_tokens=max_tokens, cache_prompt=False))


def endless(request: Request) -> Request:
    """The same without end-of-text tokens."""
    return replace(request, stop_tokens=frozenset())


class Stream:
    """A listener that keeps each token and the second it came at."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.times: list[float] = []
        self.num_cached_tokens = 0
        self.is_over = False
        self.error: TbclusterError | None = None
        self._told = threading.Condition()

    def __call__(self, item: Output | TbclusterError) -> None:
        with self._told:
            if isinstance(item, TbclusterError):
                self.error = item
            else:
                self.times.append(time.perf_counter())
                self.tokens.append(item.sampled.token)
                self.num_cached_tokens = item.num_cached_tokens
                self.is_over = item.finish_reason is not None
            self._told.notify_all()

    def await_tokens(self, count: int) -> None:
        """Wait until so many have come.

        Raises:
            TbclusterError: The request ended in an error.
        """
        self._await(lambda: len(self.tokens) >= count)

    def await_end(self) -> None:
        """Wait for the last token.

        Raises:
            TbclusterError: The request ended in an error.
        """
        self._await(lambda: self.is_over)

    def _await(self, is_so: Callable[[], bool]) -> None:
        with self._told:
            was_told = self._told.wait_for(lambda: self.error or is_so(), DEADLINE_S)
        assert was_told, f"nothing came for {DEADLINE_S:g} s"
        if self.error is not None:
            raise self.error


@dataclass(frozen=True, slots=True)
class Window:
    """Some time."""

    started: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.started


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; `waiting` is the time from the request to its first token."""

    tokens: list[int]
    waiting: Window
    num_cached_tokens: int


def answer(cluster: Cluster, request: Request) -> Answer:
    """Run one request to its end."""
    stream = Stream()
    started = time.perf_counter()
    cluster.submit(request, stream)
    stream.await_end()
    window = Window(started, stream.times[0])
    return Answer(stream.tokens, window, stream.num_cached_tokens)


def decode(cluster: Cluster, prompt: Sequence[int], num_tokens: int) -> Decode:
    """Continue a prompt greedily, as far as mlx-lm's `stream_generate` does."""
    stream = Stream()
    request = cluster.make_request(prompt, max_tokens=num_tokens, cache_prompt=False)
    cluster.submit(request, stream)
    stream.await_end()
    return decode_of(zip(stream.tokens, stream.times, strict=True))


class RunningStreams:
    """Streams that decode until the context is left, which is entered once all of them do.

    Args:
        submit: Runs a request and tells its listener.
        cancel: Ends it.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        submit: Callable[[Request, Stream], None],
        cancel: Callable[[Request], None],
    ) -> None:
        self._streams = [(request, Stream()) for request in requests]
        self._submit = submit
        self._cancel = cancel

    def run(self, num_steps: int) -> Window:
        """Wait until the stream that began last has so many more tokens."""
        youngest = max((s for _, s in self._streams), key=lambda s: s.times[SETTLING_TOKENS - 1])
        first = len(youngest.tokens) - 1
        youngest.await_tokens(first + num_steps + 1)
        return Window(youngest.times[first], youngest.times[first + num_steps])

    def tokens_per_s(self, window: Window) -> float:
        """Of all streams together. A window that `run` returned begins and ends at the same place
        in the turns that the streams take."""
        num_tokens = sum(
            window.started < when <= window.ended for _, s in self._streams for when in s.times
        )
        return num_tokens / window.seconds

    def gaps(self, window: Window) -> list[float]:
        """Seconds between two tokens of a stream, where some of the wait lies in the window."""
        return [
            end - begin
            for _, stream in self._streams
            for begin, end in zip(stream.times, stream.times[1:], strict=False)
            if end > window.started and begin < window.ended
        ]

    def __enter__(self) -> Self:
        for request, stream in self._streams:
            self._submit(request, stream)
        for _, stream in self._streams:
            stream.await_tokens(SETTLING_TOKENS)
        return self

    def __exit__(self, *_: object) -> None:
        for request, _ in self._streams:
            self._cancel(request)


def running(cluster: Cluster, prompts: Sequence[Sequence[int]]) -> RunningStreams:
    """Plain requests to a cluster."""
    requests = [plain_request(cluster, prompt, ENDLESS_TOKENS) for prompt in prompts]
    return RunningStreams(requests, cluster.submit, cluster.cancel)
