"""Bodies of requests: strictly parsed JSON."""

import re
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from tbcluster.server.problems import Refusal

# Schemas of tools and answers nest; nothing that a person wrote nests like this.
MAX_DEPTH = 64
# Each name that an object should not have is an error of its own, and costs as much.
MAX_NAMES = 4096
# Parsing and validation hold up the event loop: most lists and objects in a body (thousands of
# messages, with parts), and most values in all of them (a prompt's token ids).
MAX_CONTAINERS = 1 << 16
MAX_VALUES = 1 << 21
# A text in JSON, up to the end where it has none. Possessive: it never goes back.
TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
# From this size on, parsing is left to another thread.
BIG_BODY_BYTES = 1 << 18


class JsonRequest(Request):
    """A request whose body is read as strict JSON."""

    async def json(self) -> Any:
        """The body, parsed.

        Raises:
            Refusal: It is not JSON as RFC 8259 has it, or nests too deeply.
        """
        if not hasattr(self, "_json"):
            body = await self.body()
            if len(body) < BIG_BODY_BYTES:
                self._json = parse(body)
            else:
                self._json = await run_in_threadpool(parse, body)
        return self._json


class JsonRoute(APIRoute):
    """A route whose body is strict JSON: `APIRouter(route_class=JsonRoute)`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, over a `JsonRequest`."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(JsonRequest(request.scope, request.receive))

        return handle


class UntypedJsonRoute(JsonRoute):
    """A route that takes JSON whatever its content type says, as Ollama's does: `curl -d` says that
    it is a form. From web pages it does not: that the type has to be right is what makes browsers
    ask whether a page may send it at all."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which is told that the body is JSON."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if "origin" in request.headers:
                return await handler(request)
            others = [pair for pair in request.scope["headers"] if pair[0] != b"content-type"]
            headers = [*others, (b"content-type", b"application/json")]
            return await handler(Request({**request.scope, "headers": headers}, request.receive))

        return handle


def parse(body: bytes) -> Any:
    """JSON text as Python values. NaN, infinities, numbers out of range, invalid UTF-8 and halves
    of surrogate pairs are refused.

    Raises:
        Refusal: With status 400, and what is wrong.
    """
    _check_containers(body)
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise _malformed("a text in it is not valid UTF-8") from error
    except msgspec.DecodeError as error:
        raise _malformed(str(error)) from error
    except RecursionError as error:
        raise _too_deep() from error
    check_shape(value)
    return value


def check_shape(
    value: Any,
    max_depth: int = MAX_DEPTH,
    max_names: int = MAX_NAMES,
    max_values: int = MAX_VALUES,
) -> None:
    """Raises: Refusal when lists and objects nest too deeply or hold too much."""
    num_values = 0
    level = [value]
    for _ in range(max_depth + 1):
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return
        widest = max((len(item) for item in level if isinstance(item, dict)), default=0)
        _check_count("an object in the body has", widest, "names", max_names)
        num_values += sum(map(len, level))
        _check_count("lists and objects in the body hold", num_values, "values", max_values)
        level = [child for item in level for child in _children(item)]
    raise _too_deep()


def _check_containers(body: bytes) -> None:
    """Millions of them would take seconds and gigabytes to parse, so they are counted before."""
    if _num_openings(body) > MAX_CONTAINERS:
        outside = _num_openings(TEXT.sub(b"", body))
        _check_count("the body has", outside, "lists and objects", MAX_CONTAINERS)


def _num_openings(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def _check_count(where: str, count: int, what: str, most: int) -> None:
    if count > most:
        message = f"{where} {count:,} {what}, at most {most:,} are taken"
        raise Refusal(400, message, code="invalid_json")


def _children(item: dict[str, Any] | list[Any]) -> Any:
    return item.values() if isinstance(item, dict) else item


def _malformed(reason: str) -> Refusal:
    return Refusal(400, f"the body is not valid JSON: {reason}", code="invalid_json")


def _too_deep() -> Refusal:
    message = f"the body nests more than {MAX_DEPTH} deep: flatten it"
    return Refusal(400, message, code="invalid_json")
