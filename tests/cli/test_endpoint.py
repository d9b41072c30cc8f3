"""Addresses that are none, and servers that are none or break off."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tbcluster.cli.endpoint import Endpoint, is_address, post_json
from tbcluster.errors import EndpointError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """The address of somebody who says this to whoever comes, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_one() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_one, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:abc", "http://h:99999", "http://:80", "h:8080", "ftp://h", ""]
)
def test_an_address_that_is_none_is_named(url: str) -> None:
    assert not is_address(url)
    with pytest.raises(EndpointError, match="is no address of a server"):
        Endpoint(url)


@pytest.mark.parametrize("url", ["http://h", "https://h:8080/v1", "http://[::1]:8080"])
def test_addresses_are_taken(url: str) -> None:
    assert is_address(url)
    assert Endpoint(url).url == url.removesuffix("/v1")


def test_what_speaks_no_http_is_no_server() -> None:
    with saying(b"220 mail ready\r\n") as url, pytest.raises(EndpointError, match="no tbcluster"):
        Endpoint(url).text("/live")
    with saying(b"220 mail ready\r\n") as url, pytest.raises(EndpointError, match="does not take"):
        post_json(url, {})
    with pytest.raises(EndpointError, match="does not take"):
        post_json("http://h:abc", {})


def test_a_stream_that_is_cut_inside_a_chunk_is_an_error_of_the_server() -> None:
    # Chunks of 20 bytes are announced, of the second one the half comes.
    content = b"14\r\ndata: 12345678901234\r\n14\r\ndata: 12"
    answer = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + content
    with saying(answer) as url, pytest.raises(EndpointError, match="no tbcluster server answers"):
        list(Endpoint(url).events("/live"))


def test_an_answer_that_is_cut_is_an_error_of_the_server() -> None:
    answer = HEAD + b"Content-Length: 100\r\n\r\n{"
    with saying(answer) as url, pytest.raises(EndpointError, match="no tbcluster server answers"):
        Endpoint(url).get("/health")
