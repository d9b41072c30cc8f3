"""What one hostile client sends, how it behaves, and what it may be told."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

JSON_TYPE = "application/json"
# Stands in a body for bytes that are no JSON, or that Python would not write.
RAW = "@raw@"


class Behaviour(StrEnum):
    """What the client does once it has sent something."""

    READ = "reads every answer"
    LEAVE = "closes without reading"
    RESET = "cuts the connection without reading"
    STALL = "sends no more and waits"
    DRIP = "sends the rest byte by byte"
    DEAF = "reads nothing for a while"
    ABANDON = "reads the beginning of an answer and closes"


@dataclass(frozen=True, slots=True)
class Attack:
    """One connection.

    Attributes:
        path: Whose dialect the errors have.
        data: Sent first.
        rest: Of DRIP: sent byte by byte after that.
        num_answers: READ, STALL and DRIP end after so many answers.
        may_succeed: Whether answers below 400 are right too.
        may_close: Whether a connection that is closed without an answer is right.
    """

    name: str
    path: str
    data: bytes
    behaviour: Behaviour = Behaviour.READ
    rest: bytes = b""
    num_answers: int = 1
    may_succeed: bool = False
    may_close: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.path}; {self.behaviour.value})"


def post(
    path: str, body: bytes, *headers: str, content_type: str = JSON_TYPE, length: str | None = None
) -> bytes:
    """A request with a body; `length` stands in for its true length."""
    size = str(len(body)) if length is None else length
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {content_type}",
        f"Content-Length: {size}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, *headers: str) -> bytes:
    """A request without a body."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def as_json(body: Any, raw: bytes = b"") -> bytes:
    """A body as JSON, with `raw` where it says RAW."""
    text = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return text.replace(f'"{RAW}"'.encode(), raw)


def with_value(body: dict[str, Any], where: str, value: Any) -> dict[str, Any]:
    """A copy of `body` in which `value` stands at a path such as "messages.0.role". What is missing
    on the way is made."""
    copy: dict[str, Any] = json.loads(json.dumps(body))
    here: Any = copy
    parts: list[Any] = [int(part) if part.isdigit() else part for part in where.split(".")]
    *way, last = parts
    for part, following in zip(way, [*way, last][1:], strict=True):
        missing: Any = [] if isinstance(following, int) else {}
        if not isinstance(here, list):
            here = here.setdefault(part, missing)
            continue
        if part == len(here):
            here.append(missing)
        here = here[part]
    if isinstance(here, list) and last == len(here):
        here.append(value)
    else:
        here[last] = value
    return copy
