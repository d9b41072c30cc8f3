"""Sends an attack to a server and judges what comes back."""

import json
import select
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tbcluster.server.problems import Dialect, dialect_of
from tests.doubles.malformed.attack import Attack, Behaviour

DRIP_S = 0.02
# A reader that takes nothing has this little room for what it does not read.
DEAF_BUFFER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attack.

    Attributes:
        complaint: What the server did wrong; None where it did right.
    """

    attack: Attack
    statuses: tuple[int, ...]
    seconds: float
    complaint: str | None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool


class _Line:
    """A connection, and all that has come over it."""

    def __init__(self, port: int, deadline_s: float, *, is_deaf: bool) -> None:
        self._give_up_at = time.monotonic() + deadline_s
        self.socket = socket.socket()
        if is_deaf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DEAF_BUFFER_BYTES)
        self.socket.settimeout(deadline_s)
        self.socket.connect(("127.0.0.1", port))
        self.received = bytearray()
        self.is_closed = False
        self._scanned: list[_Answer] = []

    def send(self, data: bytes) -> None:
        """Send and listen at the same time: a server may answer before it has read everything."""
        unsent = memoryview(data)
        while unsent and not self.is_closed:
            readable, writable, _ = select.select(
                [self.socket], [self.socket], [], self.remaining_s()
            )
            if readable:
                self._take()
            elif not writable:
                raise TimeoutError
            if writable and not self.is_closed:
                try:
                    unsent = unsent[self.socket.send(unsent[: 1 << 16]) :]
                except ConnectionError:
                    break

    def push(self, data: bytes) -> None:
        """Send without looking, as far as it goes."""
        self.socket.setblocking(False)
        unsent = memoryview(data)
        while unsent and select.select([], [self.socket], [], 0.2)[1]:
            try:
                unsent = unsent[self.socket.send(unsent) :]
            except ConnectionError:
                break
        self.socket.settimeout(self.remaining_s())

    def read_until(self, num_answers: int) -> None:
        """Read so many answers, or until the server closes."""
        while not self.is_closed and self.num_whole() < num_answers:
            if not select.select([self.socket], [], [], self.remaining_s())[0]:
                raise TimeoutError
            self._take()

    def read_for(self, seconds: float) -> None:
        """Read what comes in this time, at most until the server closes."""
        until = time.monotonic() + seconds
        while not self.is_closed and (left := until - time.monotonic()) > 0:
            if select.select([self.socket], [], [], left)[0]:
                self._take()

    def num_whole(self) -> int:
        return sum(answer.is_whole for answer in answers(bytes(self.received)))

    def remaining_s(self) -> float:
        left = self._give_up_at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _take(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionError:
            data = b""
        self.is_closed = not data
        self.received += data


def perform(attack: Attack, port: int, deadline_s: float, deaf_s: float = 0) -> Outcome:
    """Carry it out and judge it.

    Args:
        deadline_s: From the connection to the end of all that was waited for.
        deaf_s: How long those that do not read keep at it; then they read for as long, and leave.
    """
    started = time.monotonic()
    line = _Line(port, deadline_s, is_deaf=attack.behaviour is Behaviour.DEAF)
    is_late = False
    with line.socket:
        try:
            _behave(attack, line, deaf_s)
        except TimeoutError:
            is_late = True
    seconds = time.monotonic() - started
    found = tuple(answers(bytes(line.received)))
    complaint = f"nothing came for {deadline_s:g} s" if is_late else _judge(attack, found)
    return Outcome(attack, tuple(answer.status for answer in found), seconds, complaint)


def _behave(attack: Attack, line: _Line, deaf_s: float) -> None:
    match attack.behaviour:
        case Behaviour.READ | Behaviour.STALL:
            line.send(attack.data)
            line.read_until(attack.num_answers)
        case Behaviour.DRIP:
            line.send(attack.data)
            for byte in attack.rest:
                if line.is_closed or line.num_whole() >= attack.num_answers:
                    return
                # Listens meanwhile: what comes before the last byte ends it.
                if not select.select([line.socket], [], [], DRIP_S)[0]:
                    line.send(bytes([byte]))
                else:
                    line.read_until(attack.num_answers)
            line.read_until(attack.num_answers)
        case Behaviour.DEAF:
            line.push(attack.data)
            select.select([], [], [], deaf_s)
            line.read_for(deaf_s)
        case Behaviour.ABANDON:
            line.send(attack.data)
            select.select([line.socket], [], [], line.remaining_s())
        case Behaviour.LEAVE:
            line.send(attack.data)
        case Behaviour.RESET:
            line.send(attack.data)
            line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _judge(attack: Attack, found: tuple[_Answer, ...]) -> str | None:
    is_gone = attack.behaviour in (Behaviour.LEAVE, Behaviour.RESET, Behaviour.ABANDON)
    if not found and not (attack.may_close or is_gone):
        return "closed without an answer"
    for answer in found:
        complaint = _judge_answer(attack, answer)
        if complaint is not None:
            return complaint
    return None


def _judge_answer(attack: Attack, answer: _Answer) -> str | None:
    if answer.status < 400:
        return (
            None if attack.may_succeed else f"answered with {answer.status}: {answer.body[:200]!r}"
        )
    if answer.status >= 500:
        return f"answered with {answer.status}: {answer.body[:300]!r}"
    if "x-request-id" not in answer.headers:
        return f"{answer.status} without x-request-id"
    if not answer.is_whole:
        return f"{answer.status} that breaks off"
    try:
        body = json.loads(answer.body)
    except ValueError:
        return f"{answer.status} with a body that is no JSON: {answer.body[:200]!r}"
    if not _has_shape(body, attack.path):
        return f"{answer.status} in another shape: {answer.body[:200]!r}"
    return None


def _has_shape(body: Any, path: str) -> bool:
    """Whether an error is worded as the dialect of the path has it."""
    if not isinstance(body, dict):
        return False
    error = body.get("error")
    if isinstance(error, dict) and set(error) == {"message", "type", "param", "code"}:
        return dialect_of(path) is Dialect.OPENAI or error["code"] in _BEFORE_ANY_PATH
    if dialect_of(path) is Dialect.ANTHROPIC:
        return body.get("type") == "error" and isinstance(error, dict) and bool(error["message"])
    return dialect_of(path) is Dialect.OLLAMA and isinstance(error, str) and bool(error)


# Refused by the connection, which knows no path: in OpenAI's shape.
_BEFORE_ANY_PATH = {"invalid_http", "header_timeout", "too_many_connections"}


def answers(received: bytes) -> Iterator[_Answer]:
    """The answers in what came; the last one may be cut."""
    while received:
        head, separator, received = received.partition(b"\r\n\r\n")
        if not separator:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split(" ")[1])
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if status < 200:
            continue
        if "content-length" in headers:
            length = int(headers["content-length"])
            body, received = received[:length], received[length:]
            yield _Answer(status, headers, body, len(body) == length)
        else:
            body, end, received = received.partition(b"\r\n0\r\n\r\n")
            yield _Answer(status, headers, body, bool(end))
