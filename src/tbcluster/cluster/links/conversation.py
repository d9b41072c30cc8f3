"""Timed exchanges with another node's `EchoServer` over one connection."""

import statistics
import time
from collections.abc import Iterator, Sequence

from tbcluster.cluster.links.echo import ANSWER, MAX_TOKEN_BYTES, SWALLOW
from tbcluster.cluster.links.ranking import BITS, LARGE_BYTES, SMALL_BYTES
from tbcluster.transport.control import ControlClient
from tbcluster.transport.doorkeeper import Context
from tbcluster.transport.trains import MAX_PART_BYTES
from tbcluster.wire.control import CurveKeys, Route
from tbcluster.wire.tensors import Buffer

GREET_S = 1.0
GREET_EVERY_S = 0.2
NUM_PINGS = 20
PINGS_S = 0.5
LOAD_S = 0.15
# Each burst of small messages is answered once; so many bursts are on their way at a time.
BURST_MESSAGES = 16
MAX_BURSTS = 4
MAX_LARGE = 3
# On a slow path a large message is cut down to what it carries in this time.
LARGE_S = 0.7


class Conversation:
    """One connection, whose questions are all answered before a deadline or not at all.

    Raises:
        RackError: The system knows no such address.
    """

    def __init__(
        self, route: Route, keys: CurveKeys, *, timeout_s: float, context: Context | None = None
    ) -> None:
        self._client = ControlClient(
            route, keys, max_message_bytes=MAX_TOKEN_BYTES, context=context
        )
        self._deadline = time.perf_counter() + timeout_s
        self._num_asked = 0

    def greet(self) -> bool:
        """Whether the other end answers, with the right key."""
        give_up = min(time.perf_counter() + GREET_S, self._deadline)
        while time.perf_counter() < give_up:
            self._ask()
            if self._is_answered(GREET_EVERY_S):
                return True
        return False

    def round_trip_us(self) -> float | None:
        """Median round trip of a small message; None if none is answered."""
        give_up = min(time.perf_counter() + PINGS_S, self._deadline)
        taken: list[float] = []
        while len(taken) < NUM_PINGS and time.perf_counter() < give_up:
            start = time.perf_counter()
            self._ask()
            if not self._is_answered(give_up - start):
                break
            taken.append(time.perf_counter() - start)
        return statistics.median(taken) * 1e6 if taken else None

    def small_gbps(self) -> float:
        """Throughput of 8 KB messages, many on their way at once; 0 if none gets across."""
        burst = [bytes(SMALL_BYTES)]
        start = end = time.perf_counter()
        first = self._num_asked
        num_answered = 0
        while True:
            while self._num_asked - first - num_answered < MAX_BURSTS and _since(start) < LOAD_S:
                for _ in range(BURST_MESSAGES - 1):
                    self._client.send([SWALLOW, b"", *burst])
                self._ask(burst)
            if self._num_asked - first == num_answered:
                break
            answered = self._next_answer(self._left_s())
            if answered is None:
                break
            num_answered, end = max(num_answered, answered - first), time.perf_counter()
        return _gbps(num_answered * BURST_MESSAGES * SMALL_BYTES, end - start)

    def large_gbps(self, expected_gbps: float) -> float:
        """Throughput of 8 MB messages, one at a time, in the parts that the data plane cuts them
        into; smaller ones where `expected_gbps` is little. 0 if none gets across."""
        num_parts = _num_parts(expected_gbps)
        train = [bytes(MAX_PART_BYTES)] * num_parts
        start = end = time.perf_counter()
        num_answered = 0
        while num_answered < MAX_LARGE and _since(start) < LOAD_S and self._left_s() > 0:
            self._ask(train)
            if not self._is_answered(self._left_s()):
                break
            num_answered, end = num_answered + 1, time.perf_counter()
        return _gbps(num_answered * num_parts * MAX_PART_BYTES, end - start)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, load: Sequence[Buffer] = ()) -> None:
        self._num_asked += 1
        self._client.send([ANSWER, str(self._num_asked).encode(), *load])

    def _is_answered(self, timeout_s: float) -> bool:
        """Whether the latest question is answered in so many seconds, and before the deadline."""
        give_up = time.perf_counter() + min(timeout_s, self._left_s())
        return any(token == self._num_asked for token in self._answers(give_up))

    def _answers(self, give_up: float) -> Iterator[int]:
        while (token := self._next_answer(give_up - time.perf_counter())) is not None:
            yield token

    def _next_answer(self, timeout_s: float) -> int | None:
        """The number of the question that the next answer is for; 0 if it is for none of these."""
        # An end to listening even if the other side never stops talking.
        frames = self._client.receive(timeout_s) if timeout_s > 0 else None
        if frames is None:
            return None
        token = bytes(frames[0])
        number = int(token) if token.isdigit() else 0
        return number if number <= self._num_asked else 0

    def _left_s(self) -> float:
        return self._deadline - time.perf_counter()


def _num_parts(expected_gbps: float) -> int:
    num_bytes = min(LARGE_BYTES, int(expected_gbps * 1e9 / BITS * LARGE_S))
    return max(1, num_bytes // MAX_PART_BYTES)


def _since(start: float) -> float:
    return time.perf_counter() - start


def _gbps(num_bytes: int, seconds: float) -> float:
    return num_bytes * BITS / seconds / 1e9 if num_bytes else 0.0
