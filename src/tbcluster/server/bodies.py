"""Bodies of requests: strictly parsed JSON."""

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute

from tbcluster.server.problems import Refusal

# Schemas of tools and answers nest; nothing that a person wrote nests like this.
MAX_DEPTH = 64
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


def parse(body: bytes) -> Any:
    """JSON text as Python values. NaN, infinities, numbers out of range, invalid UTF-8 and halves
    of surrogate pairs are refused.

    Raises:
        Refusal: With status 400, and what is wrong.
    """
    try:
        value = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise _malformed("a text in it is not valid UTF-8") from error
    except msgspec.DecodeError as error:
        raise _malformed(str(error)) from error
    except RecursionError as error:
        raise _too_deep() from error
    if is_deeper(value, MAX_DEPTH):
        raise _too_deep()
    return value


def is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects nest more than `depth` deep."""
    level = [value]
    for _ in range(depth + 1):
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return False
        level = [child for item in level for child in _children(item)]
    return True


def _children(item: dict[str, Any] | list[Any]) -> Any:
    return item.values() if isinstance(item, dict) else item


def _malformed(reason: str) -> Refusal:
    return Refusal(400, f"the body is not valid JSON: {reason}", code="invalid_json")


def _too_deep() -> Refusal:
    message = f"the body nests more than {MAX_DEPTH} deep: flatten it"
    return Refusal(400, message, code="invalid_json")
