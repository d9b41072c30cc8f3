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
# Each name that an object should not have is an error of its own, and costs as much.
MAX_NAMES = 4096
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


def check_shape(value: Any, max_depth: int = MAX_DEPTH, max_names: int = MAX_NAMES) -> None:
    """Raises: Refusal when lists and objects nest too deeply, or an object has too many names."""
    level = [value]
    for _ in range(max_depth + 1):
        level = [item for item in level if isinstance(item, (dict, list))]
        if not level:
            return
        widest = max((len(item) for item in level if isinstance(item, dict)), default=0)
        if widest > max_names:
            message = f"an object in the body has {widest:,} names, at most {max_names:,} are taken"
            raise Refusal(400, message, code="invalid_json")
        level = [child for item in level for child in _children(item)]
    raise _too_deep()


def _children(item: dict[str, Any] | list[Any]) -> Any:
    return item.values() if isinstance(item, dict) else item


def _malformed(reason: str) -> Refusal:
    return Refusal(400, f"the body is not valid JSON: {reason}", code="invalid_json")


def _too_deep() -> Refusal:
    message = f"the body nests more than {MAX_DEPTH} deep: flatten it"
    return Refusal(400, message, code="invalid_json")
