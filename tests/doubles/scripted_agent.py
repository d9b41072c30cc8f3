"""An agent that says what the test tells it to, over a real connection to the control plane."""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self, TypeVar

from tbcluster.cluster.trust import HeadIdentity
from tbcluster.transport.control import ControlClient
from tbcluster.wire.control import CurveKeys, Route
from tbcluster.wire.rack import (
    MAX_MESSAGE_BYTES,
    AgentBeat,
    FromAgent,
    FromCoordinator,
    decode_from_coordinator,
    encode_message,
)
from tests.doubles.waiting import join, wait_until

Message = TypeVar("Message")
Answer = Callable[[FromCoordinator], FromAgent | None]

BEAT_S = 0.2


class ScriptedAgent:
    """Dials the control plane of a head node on this machine, beats, and keeps all it is told.

    Attributes:
        runs: Workers that it names in its beats.
        is_silent: It does not beat.
        answer: What it says to a message of the coordinator.
    """

    def __init__(self, head: HeadIdentity, keys: CurveKeys) -> None:
        self.told: list[FromCoordinator] = []
        self.runs: tuple[str, ...] = ()
        self.is_silent = False
        self.answer: Answer = lambda _: None
        self._head, self._keys = head, keys
        self._client = self._connect()
        self._to_say: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._has_to_reconnect = self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="scripted agent", daemon=True)
        self._thread.start()

    def say(self, *messages: FromAgent) -> None:
        """Tell the coordinator."""
        for message in messages:
            self.say_bytes(encode_message(message))

    def say_bytes(self, frame: bytes) -> None:
        """Tell it something that may be no message."""
        self._to_say.put(frame)
        self._client.wake()

    def reconnect(self) -> None:
        """Give the connection up for a new one, which the next message opens."""
        self._has_to_reconnect = True
        self._client.wake()
        wait_until(lambda: not self._has_to_reconnect, "it has another connection")

    def all_of(self, kind: type[Message]) -> list[Message]:
        """What it was told of this kind so far, oldest first."""
        return [message for message in self.told if isinstance(message, kind)]

    def hear(self, kind: type[Message], number: int = 1) -> Message:
        """The first (second, ...) message of this kind, which may yet come."""
        wait_until(
            lambda: len(self.all_of(kind)) >= number, f"{number} {kind.__name__} came: {self.told}"
        )
        return self.all_of(kind)[number - 1]

    def close(self) -> None:
        """Be gone, without a word."""
        self._is_closing = True
        self._client.wake()
        join(self._thread, "the agent has ended")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> ControlClient:
        route = Route(f"tcp://127.0.0.1:{self._head.control_port}", self._head.keys.public)
        return ControlClient(route, self._keys, max_message_bytes=MAX_MESSAGE_BYTES)

    def _run(self) -> None:
        beat_at = time.monotonic() + BEAT_S
        while not self._is_closing:
            frames = self._client.receive(BEAT_S)
            if self._has_to_reconnect:
                self._client.close()
                self._client = self._connect()
                self._has_to_reconnect = False
            if frames is not None:
                self._take(decode_from_coordinator(frames[0]))
            with suppress(queue.Empty):
                while True:
                    self._client.send([self._to_say.get_nowait()])
            if not self.is_silent and time.monotonic() >= beat_at:
                beat_at = time.monotonic() + BEAT_S
                self._client.send([encode_message(AgentBeat(time.time(), self.runs))])
        self._client.close()

    def _take(self, message: FromCoordinator) -> None:
        self.told.append(message)
        answer = self.answer(message)
        if answer is not None:
            self._client.send([encode_message(answer)])
