"""A running server, as commands ask it over HTTP."""

import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tbcluster.errors import EndpointError

# What takes longer is asked for and then looked at, not waited for.
TIMEOUT_S = 30.0
EVENT = b"data:"
# What the standard library raises for a server that is none, has gone or breaks off, and for an
# address that is none. HTTPException is no OSError.
UNREACHED = (OSError, ValueError, http.client.HTTPException)


class Endpoint:
    """A server at an address.

    Args:
        url: Such as http://127.0.0.1:8080.
        key: An API key; None where none is asked for.

    Raises:
        EndpointError: The address is none, no server answers there, or it refuses what is asked;
            its own words say why.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        if not is_address(url):
            raise EndpointError(
                f"{url!r} is no address of a server: give one such as http://host:8080"
            )
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            if not key.isascii():
                raise EndpointError("--key: an API key is of ASCII's characters alone")
            self._headers["Authorization"] = f"Bearer {key}"

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return self._ask(path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What the server answers to a body."""
        return self._ask(path, json.dumps(body).encode())

    def text(self, path: str) -> str:
        """What is at a path, as text."""
        with self._opened(path, None) as answer:
            content: bytes = answer.read()
        return content.decode()

    def events(self, path: str) -> Iterator[str]:
        """The data of each server-sent event of a stream, as it comes."""
        with self._opened(path, None) as answer:
            for line in answer:
                if line.startswith(EVENT):
                    yield line[len(EVENT) :].decode().strip()

    def _ask(self, path: str, content: bytes | None) -> Any:
        with self._opened(path, content) as answer:
            return json.load(answer)

    @contextmanager
    def _opened(self, path: str, content: bytes | None) -> Iterator[Any]:
        request = urllib.request.Request(self.url + path, content, self._headers)  # noqa: S310
        # A proxy for the internet knows nothing of servers here.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT_S) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            raise EndpointError(f"{self.url}: {_words(error)}") from error
        except UNREACHED as error:
            reason = getattr(error, "reason", error)
            raise EndpointError(
                f"no tbcluster server answers at {self.url} ({reason}): start one with "
                "`tbcluster serve`, or name its address with --url"
            ) from error


def is_address(url: str) -> bool:
    """Whether it names a server, and a port that can be one."""
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        return False


def _words(error: urllib.error.HTTPError) -> str:
    """What the server says of it."""
    try:
        return str(json.load(error)["error"]["message"])
    except (OSError, ValueError, LookupError, TypeError):
        return f"it answers {error.code} {error.reason}: is it tbcluster's?"


def post_json(url: str, body: dict[str, Any]) -> None:
    """Send a body to an address that is no tbcluster server's.

    Raises:
        EndpointError: The address is none, nobody answers there, or it is refused.
    """
    content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(url, content, headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
            pass
    except urllib.error.HTTPError as error:
        raise EndpointError(f"{url} answers {error.code} {error.reason}") from error
    except UNREACHED as error:
        raise EndpointError(f"{url} does not take it: {getattr(error, 'reason', error)}") from error
