"""Servers of other makes, and addresses that are none."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tbcluster.errors import EndpointError
from tbcluster.loadtest.client import LoadClient
from tbcluster.loadtest.samples import Sample

GOOD = '{"choices": [{"delta": {"content": "a"}}]}'
COUNTED = '{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}'


@contextmanager
def streaming(*events: str, models: str = '{"data": [{"id": "m"}]}') -> Iterator[str]:
    """The address of a server whose answers are these events."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(models)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer("".join(f"data: {event}\n\n" for event in events))

        def answer(self, text: str) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def asked(url: str) -> Sample:
    """A request to it."""

    async def ask() -> Sample:
        async with LoadClient(url, None, "m", "chat") as client:
            return await client.measure("Hi", 1)

    return asyncio.run(ask())


def test_an_answer_is_followed_to_its_end() -> None:
    with streaming(GOOD, COUNTED, "[DONE]") as url:
        sample = asked(url)
    assert sample.error is None
    assert len(sample.chunks_at) == 1
    assert (sample.prompt_tokens, sample.output_tokens) == (3, 1)


def test_reasoning_is_of_tokens_too() -> None:
    events = [f'{{"choices": [{{"delta": {{"{name}": "a"}}}}]}}' for name in ("reasoning", "x")]
    with streaming(*events, '{"choices": [{"text": "a"}]}') as url:
        assert len(asked(url).chunks_at) == 2


@pytest.mark.parametrize(
    "event", ["[]", "1", "no JSON", '{"choices": [1]}', '{"usage": "x"}', '{"choices": "abc"}']
)
def test_an_event_of_another_shape_is_an_error_of_that_request(event: str) -> None:
    with streaming(GOOD, event) as url:
        error = asked(url).error
    assert error is not None
    assert "cannot be read" in error
    assert event in error


@pytest.mark.parametrize("models", ["[]", "no JSON", '{"data": []}', '{"data": [1]}'])
def test_a_server_that_lists_no_model_has_to_be_told_one(models: str) -> None:
    async def begin(url: str) -> None:
        async with LoadClient(url, None, None, "chat") as client:
            await client.begin()

    with streaming(models=models) as url, pytest.raises(EndpointError, match="--model"):
        asyncio.run(begin(url))


@pytest.mark.parametrize("url", ["http://h:abc", "http://[::1"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(EndpointError, match="is no address of a server"):
        LoadClient(url, None, None, "auto")


def test_a_key_that_cannot_be_one_is_not_repeated() -> None:
    with pytest.raises(EndpointError, match="--key") as caught:
        LoadClient("http://h", "geheimä", None, "auto")
    assert "geheim" not in str(caught.value)
