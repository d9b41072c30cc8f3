"""Streaming clients in a process of their own that read sockets and do nothing else."""

import json
import selectors
import socket
import sys
import time
from collections.abc import Sequence

from benchmarks.line_process import LineProcess

END = b"data: [DONE]\n\n"


class HttpClients(LineProcess):
    """The process, as a context manager."""

    def __init__(self) -> None:
        super().__init__("benchmarks.http_clients")

    def run(
        self, port: int, model: str, prompts: Sequence[Sequence[int]], num_tokens: int
    ) -> float:
        """Tokens per second of all prompts streamed at once, from the first request to the last
        token."""
        bodies = [
            {
                "model": model,
                "prompt": list(prompt),
                "max_tokens": num_tokens,
                "temperature": 0,
                "stream": True,
                "ignore_eos": True,
                "cache_prompt": False,
            }
            for prompt in prompts
        ]
        self.write(json.dumps({"port": port, "bodies": bodies}))
        answer = self.read()
        assert answer["num_complete"] == len(prompts), "a stream ended in an error"
        rate: float = len(prompts) * num_tokens / answer["seconds"]
        return rate


def stream_all(port: int, requests: list[bytes]) -> tuple[float, int]:
    """Send all at once; seconds until each has ended, and how many were streamed to their end."""
    tails: dict[socket.socket, bytes] = {}
    num_complete = 0
    with selectors.DefaultSelector() as selector:
        started = time.perf_counter()
        for request in requests:
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ)
            tails[connection] = b""
        while tails:
            for key, _ in selector.select():
                connection = key.fileobj  # type: ignore[assignment]
                data = connection.recv(1 << 16)
                tails[connection] = (tails[connection] + data)[-64:]
                if not data or END in tails[connection]:
                    num_complete += END in tails.pop(connection)
                    selector.unregister(connection)
                    connection.close()
        return time.perf_counter() - started, num_complete


def post(body: dict[str, object]) -> bytes:
    """A request on the wire."""
    content = json.dumps(body).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def main() -> None:
    """Read a line with what to send, write a line with what was measured."""
    for line in sys.stdin:
        task = json.loads(line)
        seconds, num_complete = stream_all(task["port"], [post(body) for body in task["bodies"]])
        answer = {"seconds": seconds, "num_complete": num_complete}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
