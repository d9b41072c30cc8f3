"""Readers of `/live` in a process of their own that do nothing else."""

import json
import selectors
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.line_process import LineProcess

REQUEST = b"GET /live HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"


class LiveReaders(LineProcess):
    """The process, as a context manager."""

    def __init__(self) -> None:
        super().__init__("benchmarks.live_readers")

    @contextmanager
    def reading(self, port: int, count: int) -> Iterator[None]:
        """So many read while the block runs; each has had its first view when it begins."""
        self.write(json.dumps({"port": port, "count": count}))
        self.read()
        try:
            yield
        finally:
            self.write("end")
            self.read()


def read_all(connections: list[socket.socket], is_over: threading.Event) -> None:
    """Read whatever comes until it is over."""
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while not is_over.is_set():
            for key, _ in selector.select(0.1):
                key.fileobj.recv(1 << 20)  # type: ignore[union-attr]


def main() -> None:
    """A line opens readers, the next one closes them."""
    for line in sys.stdin:
        task = json.loads(line)
        address = ("127.0.0.1", task["port"])
        connections = [socket.create_connection(address) for _ in range(task["count"])]
        for connection in connections:
            connection.sendall(REQUEST)
        for connection in connections:
            connection.recv(1 << 16)
        is_over = threading.Event()
        thread = threading.Thread(target=read_all, args=(connections, is_over))
        thread.start()
        print(json.dumps({"reads": len(connections)}), flush=True)
        sys.stdin.readline()
        is_over.set()
        thread.join()
        for connection in connections:
            connection.close()
        print(json.dumps({"reads": 0}), flush=True)


if __name__ == "__main__":
    main()
