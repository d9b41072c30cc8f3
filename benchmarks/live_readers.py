"""Readers of `/live` in a process of their own that do nothing else."""

import json
import selectors
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.line_process import LineProcess

OK = b"HTTP/1.1 200"
VIEW = b"data: "
REQUEST = b"GET /live HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


class LiveReaders(LineProcess):
    """The process, as a context manager."""

    def __init__(self) -> None:
        super().__init__("benchmarks.live_readers")

    @contextmanager
    def reading(self, port: int, count: int) -> Iterator[None]:
        """So many read while the block runs; each has had its first view when it begins, and as
        many more as the block had seconds, but for one, when it ends."""
        self.write(json.dumps({"port": port, "count": count}))
        self.read()
        started = time.monotonic()
        yield
        seconds = time.monotonic() - started
        self.write("end")
        views = self.read()["views"]
        assert views >= int(seconds) - 1, f"{views} views in {seconds:.1f} s"


def first_view(connection: socket.socket) -> None:
    """Wait until the first view has come.

    Raises:
        ConnectionError: There is none.
    """
    heard = b""
    while VIEW not in heard:
        new = connection.recv(1 << 16)
        heard += new
        if not new or not OK.startswith(heard[: len(OK)]):
            raise ConnectionError(f"no view came, but {heard[:200]!r}")


def read_all(
    connections: list[socket.socket], is_over: threading.Event, counts: Counter[int]
) -> None:
    """Read whatever comes until it is over, and count the views of each."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while not is_over.is_set():
            for key, _ in selector.select(0.1):
                heard = key.fileobj.recv(1 << 20)  # type: ignore[union-attr]
                counts[key.fd] += heard.count(VIEW)


def main() -> None:
    """A line opens readers, the next one closes them."""
    for line in sys.stdin:
        task = json.loads(line)
        address = ("127.0.0.1", task["port"])
        connections = [socket.create_connection(address) for _ in range(task["count"])]
        for connection in connections:
            connection.sendall(REQUEST)
        for connection in connections:
            first_view(connection)
        is_over, counts = threading.Event(), Counter[int]()
        thread = threading.Thread(target=read_all, args=(connections, is_over, counts))
        thread.start()
        print(json.dumps({"views": 1}), flush=True)
        sys.stdin.readline()
        is_over.set()
        thread.join()
        fewest = min(counts[connection.fileno()] for connection in connections)
        for connection in connections:
            connection.close()
        print(json.dumps({"views": fewest}), flush=True)


if __name__ == "__main__":
    main()
