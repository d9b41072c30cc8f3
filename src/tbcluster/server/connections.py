"""A client's connection: uvicorn's HTTP/1.1 protocol, with a deadline for all it waits for."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tbcluster.hardware.open_files import raise_open_files
from tbcluster.server.guards import new_request_id
from tbcluster.server.options import ServerOptions
from tbcluster.server.problems import Dialect, Refusal, body_of

MAX_CONNECTIONS = 1000
# File descriptors that are not connections: the listener, files, pipes and sockets of the stages.
OTHER_DESCRIPTORS = 128
# A reader has to take so much of its answer in `write_timeout_s`, or all that is left of it.
MIN_READ_BYTES = 4096
# Longest request line and headers together.
MAX_HEAD_BYTES = 64 * 1024


def max_connections() -> int:
    """How many connections the process has file descriptors for, after raising its own limit."""
    limit = raise_open_files(MAX_CONNECTIONS + OTHER_DESCRIPTORS)
    if limit is None:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, limit - OTHER_DESCRIPTORS))


def connection_class(options: ServerOptions, limit: int) -> type["Connection"]:
    """What uvicorn makes of each connection; at most `limit` at once."""
    return type("Connection", (Connection,), {"options": options, "limit": limit})


class Connection(H11Protocol):
    """Cut when its client takes too long: over a request's head, over a body that was refused, over
    reading its answer, or before the next request."""

    options: ClassVar[ServerOptions] = ServerOptions()
    limit: ClassVar[int] = MAX_CONNECTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waits_for: str | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._num_unsent = 0

    # What asyncio calls

    # uvicorn's own narrows asyncio's argument in the same way.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: it has to say what it wants."""
        super().connection_made(transport)
        if len(self.connections) > self.limit:
            message = f"{self.limit} connections are open already: try again later"
            self._refuse(Refusal(503, message, kind="server_error", code="too_many_connections"))
            return
        self._wait_for("head", self.options.header_timeout_s, self._head_is_late)

    def data_received(self, data: bytes) -> None:
        """Some bytes of requests."""
        super().data_received(data)
        self._watch_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._wait_for(None)
        self._forget_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client takes less than it is sent."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._forget_writing()
        super().resume_writing()

    # What uvicorn calls

    def on_response_complete(self) -> None:
        """An answer has been written."""
        super().on_response_complete()
        self._watch_reading()
        if self.transport.is_closing():
            self._watch_writing()

    def timeout_keep_alive_handler(self) -> None:
        """No next request came."""
        super().timeout_keep_alive_handler()
        self._watch_writing()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        self._refuse(Refusal(400, f"{msg} The connection is closed.", code="invalid_http"))

    # Reading

    def _watch_reading(self) -> None:
        """Set the deadline for what the client has to send now. Bytes that come one by one do not
        extend it."""
        if self.transport.is_closing():
            self._wait_for(None)
        elif self.conn.their_state is h11.IDLE:
            if self.conn.trailing_data[0]:
                self._unset_keepalive_if_required()
                self._wait_for("head", self.options.header_timeout_s, self._head_is_late)
            elif self._waits_for != "head" or self.cycle is not None:
                self._wait_for(None)
                self._wait_for_next_request()
        elif self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            self._wait_for("refused body", self.options.refused_body_s, self.transport.abort)
        else:
            self._wait_for(None)

    def _wait_for_next_request(self) -> None:
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _wait_for(
        self, what: str | None, at_most_s: float = 0, on_late: Callable[[], None] = lambda: None
    ) -> None:
        """Begin to wait for something else; what is waited for already keeps its deadline."""
        if what == self._waits_for:
            return
        if self._read_timer is not None:
            self._read_timer.cancel()
        self._waits_for = what
        self._read_timer = None if what is None else self.loop.call_later(at_most_s, on_late)

    def _head_is_late(self) -> None:
        if not self.conn.trailing_data[0]:
            self.transport.close()  # it never said a word
            return
        message = f"the request's head took longer than {self.options.header_timeout_s:g} seconds"
        self._refuse(Refusal(408, message, code="header_timeout"))

    # Writing

    def _watch_writing(self) -> None:
        """Look again later whether the client has taken anything."""
        if self._write_timer is None:
            self._num_unsent = self.transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(
                self.options.write_timeout_s, self._check_writing
            )

    def _check_writing(self) -> None:
        self._write_timer = None
        num_unsent = self.transport.get_write_buffer_size()
        if num_unsent == 0:
            return
        if num_unsent > self._num_unsent - MIN_READ_BYTES:
            # The endpoint hears that the client is gone, and its request ends.
            self.transport.abort()
            return
        self._watch_writing()

    def _forget_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # Ending

    def _refuse(self, refusal: Refusal) -> None:
        """Answer outside of any request, if no answer has begun, and close."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(body_of(refusal, Dialect.OPENAI)).encode()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
                ("x-request-id", new_request_id()),
            ]
            head = h11.Response(status_code=refusal.status_code, headers=headers)
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
        self._watch_writing()
