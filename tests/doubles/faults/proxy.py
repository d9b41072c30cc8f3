"""A TCP proxy that spoils what passes: flips bytes, truncates, stalls, cuts, repeats, reorders."""

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Self

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 1 << 16
NUM_RECORDED = 64
CONNECT_S = 5.0

# What becomes of a piece of bytes: the pieces to send, and None for the connection's end.
Spoil = Callable[[bytes], list[bytes | None]]


class TcpProxy:
    """Passes connections on to a port of this machine. What is asked for happens to the next bytes
    that clients send; answers pass as they are.

    Attributes:
        target: The port that new connections go to.
        num_spoilt: Faults that have happened so far.
        recorded: The newest pieces that clients have sent, as they came.
    """

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.num_spoilt = 0
        self.recorded: deque[bytes] = deque(maxlen=NUM_RECORDED)
        self._lock = threading.Lock()
        self._spoils: deque[Spoil] = deque()
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._is_closed = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    # What can happen

    def corrupt(self) -> None:
        """Flip one bit in the middle of the next piece."""

        def flipped(piece: bytes) -> list[bytes | None]:
            spoilt = bytearray(piece)
            spoilt[len(spoilt) // 2] ^= 0x10
            return [bytes(spoilt)]

        self._next(flipped)

    def truncate(self) -> None:
        """Pass on half of the next piece, then end the connection."""
        self._next(lambda piece: [piece[: len(piece) // 2], None])

    def repeat(self) -> None:
        """Send the next piece twice."""
        self._next(lambda piece: [piece, piece])

    def reorder(self) -> None:
        """Send the next piece after the one that follows it."""
        held: list[bytes] = []

        def hold(piece: bytes) -> list[bytes | None]:
            held.append(piece)
            return []

        self._next(hold, lambda piece: [piece, *held])

    def replay(self) -> None:
        """Send what was recorded last before the next piece."""
        self._next(lambda piece: [self.recorded[-2], piece] if len(self.recorded) > 1 else [piece])

    def stall(self) -> None:
        """Pass nothing on until `resume`; nothing is lost by that alone."""
        self._flows.clear()

    def resume(self) -> None:
        """Pass on what was stalled."""
        self._flows.set()

    def cut(self) -> None:
        """End all connections, and refuse new ones until `mend`."""
        with self._lock:
            self._is_cut = True
        self.reset()

    def mend(self) -> None:
        """Let new connections through."""
        with self._lock:
            self._is_cut = False

    def reset(self) -> None:
        """End all connections; new ones are let through."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair)

    @property
    def is_spoiling(self) -> bool:
        """Whether something that was asked for has not happened yet."""
        with self._lock:
            return bool(self._spoils)

    # How

    def close(self) -> None:
        """End everything."""
        self._is_closed = True
        self._flows.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next(self, *spoils: Spoil) -> None:
        with self._lock:
            self._spoils.extend(spoils)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((LOOPBACK, self.target), CONNECT_S)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            self._begin((client, server))

    def _begin(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            is_refused = self._is_cut or self._is_closed
            if not is_refused:
                self._pairs.add(pair)
        if is_refused:
            self._end(pair)
            return
        for end in pair:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, target, is_spoilt in ((*pair, True), (*reversed(pair), False)):
            pump = threading.Thread(
                target=self._pump, args=(pair, source, target, is_spoilt), daemon=True
            )
            pump.start()

    def _pump(
        self,
        pair: tuple[socket.socket, socket.socket],
        source: socket.socket,
        target: socket.socket,
        is_spoilt: bool,
    ) -> None:
        with suppress(OSError):
            while piece := source.recv(CHUNK_BYTES):
                self._flows.wait()
                for part in self._passed(piece) if is_spoilt else [piece]:
                    if part is None:
                        raise ConnectionAbortedError
                    target.sendall(part)
        self._end(pair)

    def _passed(self, piece: bytes) -> list[bytes | None]:
        with self._lock:
            self.recorded.append(piece)
            spoil = self._spoils.popleft() if self._spoils else None
            self.num_spoilt += spoil is not None
        return [piece] if spoil is None else spoil(piece)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
