"""A relay of whole messages between two stages: sees, loses, repeats, reorders and spoils them.

Messages cross it in the clear, as they do on one machine; nothing here can open a sealed one.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

import zmq

RECONNECT_MS = 20
LOOK_MS = 50
DELIVERY_MS = 2000
NUM_RECORDED = 4096

Message = list[bytes]
# What becomes of a message: those to pass on.
Spoil = Callable[[Message], list[Message]]


class FrameRelay:
    """Binds an endpoint, and passes on what comes to another one, whoever has bound that.

    Args:
        on_message: Called with each message before it is passed on, in the relay's thread.

    Attributes:
        recorded: The newest messages, as they came.
    """

    def __init__(
        self, endpoint: str, target: str, on_message: Callable[[Message], None] = lambda _: None
    ) -> None:
        self.endpoint = endpoint
        self.recorded: deque[Message] = deque(maxlen=NUM_RECORDED)
        self._target = target
        self._on_message = on_message
        self._lock = threading.Lock()
        self._spoils: deque[Spoil] = deque()
        self._is_closed = threading.Event()
        self._is_bound = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()
        assert self._is_bound.wait(DELIVERY_MS / 1e3), f"cannot bind {endpoint}"

    # What can happen

    def lose(self) -> None:
        """The next message does not arrive."""
        self._next(lambda _: [])

    def repeat(self) -> None:
        """The next message arrives twice."""
        self._next(lambda message: [message, message])

    def reorder(self) -> None:
        """The next message arrives after the one that follows it."""
        held: list[Message] = []

        def hold(message: Message) -> list[Message]:
            held.append(message)
            return []

        self._next(hold, lambda message: [message, *held])

    def truncate(self) -> None:
        """The next message lacks the end of its last frame."""
        self._next(lambda message: [[*message[:-1], message[-1][: len(message[-1]) // 2]]])

    def garble(self) -> None:
        """The next message begins with bytes that are no header."""
        self._next(lambda message: [[b"\xc1" + message[0][1:], *message[1:]]])

    @property
    def is_spoiling(self) -> bool:
        """Whether something that was asked for has not happened yet."""
        with self._lock:
            return bool(self._spoils)

    def close(self) -> None:
        """End it; what is under way is lost."""
        self._is_closed.set()
        self._thread.join()

    def _next(self, *spoils: Spoil) -> None:
        with self._lock:
            self._spoils.extend(spoils)

    def _run(self) -> None:
        context = zmq.Context.instance()
        with context.socket(zmq.PULL) as inbound, context.socket(zmq.PUSH) as outbound:
            inbound.set(zmq.RCVHWM, 0)
            inbound.bind(self.endpoint)
            set_up_sender(outbound, self._target)
            self._is_bound.set()
            while not self._is_closed.is_set():
                if inbound.poll(LOOK_MS):
                    self._pass_on(inbound.recv_multipart(), outbound)

    def _pass_on(self, message: Message, outbound: "zmq.Socket[bytes]") -> None:
        self.recorded.append(message)
        self._on_message(message)
        with self._lock:
            spoil = self._spoils.popleft() if self._spoils else None
        for passed in [message] if spoil is None else spoil(message):
            with suppress(zmq.Again):
                outbound.send_multipart(passed, zmq.DONTWAIT)


def send_again(endpoint: str, messages: Sequence[Message]) -> None:
    """Send messages straight into a stage, over a connection of its own, as a stranger on the same
    machine could."""
    with zmq.Context.instance().socket(zmq.PUSH) as sender:
        set_up_sender(sender, endpoint)
        sender.set(zmq.LINGER, DELIVERY_MS)
        for message in messages:
            sender.send_multipart(message)


def set_up_sender(sender: "zmq.Socket[bytes]", target: str) -> None:
    """Connect, for as long as it takes, and hold whatever cannot be sent yet."""
    sender.set(zmq.SNDHWM, 0)
    sender.set(zmq.LINGER, 0)
    sender.set(zmq.RECONNECT_IVL, RECONNECT_MS)
    sender.connect(target)
