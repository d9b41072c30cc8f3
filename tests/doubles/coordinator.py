"""A coordinator that does nothing but listen, and say what it is told to."""

import threading
from collections.abc import Collection
from typing import Self, TypeVar

from tbcluster.transport.control import ControlServer
from tbcluster.transport.curve import Guard
from tbcluster.wire.control import CurveKeys
from tbcluster.wire.rack import (
    MAX_MESSAGE_BYTES,
    AgentBeat,
    CoordinatorBeat,
    FromAgent,
    FromCoordinator,
    Hello,
    Refused,
    Welcome,
    WhoAreYou,
    WorkerEnded,
    WorkerSaid,
    WorkerStarted,
    decode_from_agent,
    encode_message,
)
from tests.doubles.waiting import join, wait_until

Message = TypeVar("Message")


class CoordinatorDouble:
    """Welcomes (or refuses) every Hello, answers every beat, keeps all that was said.

    Args:
        port: Where to listen, on loopback; 0 for any.
        refusal: What agents are refused for, if they are.
        node_name: What it calls them.
    """

    def __init__(
        self,
        keys: CurveKeys,
        allowed: Collection[str],
        *,
        port: int = 0,
        incarnation: str = "first",
        refusal: str | None = None,
        node_name: str = "mini2",
    ) -> None:
        endpoint = f"tcp://127.0.0.1:{port or '*'}"
        guard = Guard(keys, frozenset(allowed).__contains__)
        self._server = ControlServer(endpoint, guard, max_message_bytes=MAX_MESSAGE_BYTES)
        self.port = self._server.port
        self.incarnation = incarnation
        self.refusal = refusal
        self.node_name = node_name
        self.said: list[FromAgent] = []
        self._to_say: list[FromCoordinator] = []
        self._peer = b""
        self._heard = 0
        self.is_deaf = False
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="coordinator")
        self._thread.start()

    def say(self, message: FromCoordinator) -> None:
        """Tell the agent that greeted last."""
        self._to_say.append(message)
        self._server.wake()

    def all_of(self, kind: type[Message]) -> list[Message]:
        """What was said of this kind so far, oldest first."""
        return [message for message in self.said if isinstance(message, kind)]

    def hear(self, kind: type[Message], number: int = 1) -> Message:
        """The first (second, ...) message of this kind, which may yet come."""
        wait_until(lambda: len(self.all_of(kind)) >= number, f"{number} {kind.__name__} came")
        return self.all_of(kind)[number - 1]

    def of_worker(self, worker_id: str) -> list[object]:
        """What was said of a worker, oldest first: its reports, then how it ended."""
        found: list[object] = []
        for message in self.said:
            match message:
                case WorkerSaid(worker_id=named, report=report) if named == worker_id:
                    found.append(report)
                case WorkerEnded(worker_id=named, what=what) if named == worker_id:
                    found.append(what)
        return found

    def close(self) -> None:
        """Be gone, without a word."""
        self._is_closing = True
        self._server.wake()
        join(self._thread, "the coordinator has ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._is_closing:
            arrival = self._server.receive(5.0)
            while self._to_say:
                self._server.send(self._peer, [encode_message(self._to_say.pop(0))])
            if arrival is not None and not self.is_deaf:
                self._take(arrival.peer, decode_from_agent(arrival.frames[0]))
        self._server.close()

    def _take(self, peer: bytes, message: FromAgent) -> None:
        if not isinstance(message, Hello) and peer != self._peer:
            # It has not greeted over this connection.
            self._server.send(peer, [encode_message(WhoAreYou())])
            return
        match message:
            case Hello():
                self._peer = peer
                welcome = Welcome(self.incarnation, "rack", self.node_name)
                answer = welcome if self.refusal is None else Refused(self.refusal)
                self._server.send(peer, [encode_message(answer)])
            case AgentBeat():
                self._server.send(peer, [encode_message(CoordinatorBeat(self._heard))])
            case WorkerSaid() | WorkerStarted() | WorkerEnded():
                if message.serial <= self._heard:
                    return
                self._heard = message.serial
        self.said.append(message)
