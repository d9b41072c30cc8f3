"""Places on this machine with something between the stages: relays that see every message, or TCP
proxies around sealed connections, as between machines."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from tbcluster.cluster.places import COORDINATOR, LocalPlaces, OnExit, OnReport
from tbcluster.errors import WireError
from tbcluster.transport.curve import Guard, new_keys
from tbcluster.wire.control import Report, Route, StageSpec
from tbcluster.wire.messages import Result, Step, decode_result, decode_step
from tests.doubles.faults.proxy import LOOPBACK, TcpProxy
from tests.doubles.faults.relay import FrameRelay, Message

ANY_LOCAL_PORT = f"tcp://{LOOPBACK}:*"
Hop = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Launched:
    """A worker's process was made; it has not read its spec."""

    stage: int
    pid: int


@dataclass(frozen=True, slots=True)
class Said:
    """A worker has reported something."""

    stage: int
    pid: int
    report: Report


@dataclass(frozen=True, slots=True)
class Crossed:
    """A message is about to be passed on from one stage to the next."""

    hop: Hop
    message: Step | Result


Event = Launched | Said | Crossed


class WatchedPlaces(LocalPlaces):
    """Tells what workers report and what crosses between them, before anyone else hears of it.

    Attributes:
        relays: By hop, once it was routed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.relays: dict[Hop, FrameRelay] = {}
        self._awaited: list[tuple[Callable[[Event], bool], Callable[[Event], None]]] = []
        self._lock = threading.Lock()

    def once(self, is_it: Callable[[Event], bool], act: Callable[[Event], None]) -> None:
        """Call `act`, once, with the first event from now on that is the one meant, in the thread
        that notices it; what happens next waits for that."""
        with self._lock:
            self._awaited.append((is_it, act))

    @property
    def num_awaited(self) -> int:
        """Events that have not come yet."""
        with self._lock:
            return len(self._awaited)

    def inbound(self, stage: int) -> str:
        """Where a stage, or the coordinator, receives."""
        return super().route(COORDINATOR, stage, 0).endpoint

    def launch(self, spec: StageSpec, on_report: OnReport, on_exit: OnExit) -> Any:
        pids: list[int] = []
        is_known = threading.Event()

        def hear(report: Report) -> None:
            is_known.wait()
            self._tell(Said(spec.index, pids[0], report))
            on_report(report)

        worker = super().launch(spec, hear, on_exit)
        pids.append(worker.pid)
        self._tell(Launched(spec.index, worker.pid))
        is_known.set()
        return worker

    def route(self, source: int, target: int, port: int) -> Route:
        hop = (source, target)
        with self._lock:
            if hop not in self.relays:
                names = ["c" if end == COORDINATOR else str(end) for end in hop]
                endpoint = f"ipc://{self._run_dir}/hop-{'-'.join(names)}"
                self.relays[hop] = FrameRelay(
                    endpoint, self.inbound(target), lambda message: self._crossed(hop, message)
                )
            return Route(self.relays[hop].endpoint)

    def close(self) -> None:
        with self._lock:
            relays, self.relays = list(self.relays.values()), {}
        for relay in relays:
            relay.close()
        super().close()

    def _crossed(self, hop: Hop, message: Message) -> None:
        decode: Callable[[Any], Step | Result]
        decode = decode_result if hop[1] == COORDINATOR else decode_step
        try:
            self._tell(Crossed(hop, decode(list(message))))
        except WireError:
            return  # passed on as it is: its receiver has to deal with it

    def _tell(self, event: Event) -> None:
        with self._lock:
            found = [awaited for awaited in self._awaited if awaited[0](event)]
            self._awaited = [awaited for awaited in self._awaited if awaited not in found]
        for _, act in found:
            act(event)


class ProxiedPlaces(LocalPlaces):
    """Every hop crosses a TCP proxy and is sealed, as between machines. Nobody tells when a proxy
    is cut: what is lost has to be noticed by whoever waits for it.

    Attributes:
        proxies: By hop, once it was routed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.proxies: dict[Hop, TcpProxy] = {}
        # One key pair for all: that strangers are kept out is tested elsewhere.
        self.keys = new_keys()
        self.results_guard = Guard(self.keys, self._is_ours)
        self._lock = threading.Lock()

    @property
    def results(self) -> str:
        return ANY_LOCAL_PORT

    def launch(self, spec: StageSpec, on_report: OnReport, on_exit: OnExit) -> Any:
        keys = self.keys
        sealed = msgspec.structs.replace(spec, keys=keys, senders=(keys.public,))
        return super().launch(sealed, on_report, on_exit)

    def route(self, source: int, target: int, port: int) -> Route:
        with self._lock:
            proxy = self.proxies.setdefault((source, target), TcpProxy())
        proxy.target = port
        return Route(f"tcp://{LOOPBACK}:{proxy.port}", self.keys.public)

    def close(self) -> None:
        with self._lock:
            proxies, self.proxies = list(self.proxies.values()), {}
        for proxy in proxies:
            proxy.close()
        super().close()

    def _endpoint(self, target: int) -> str:
        return ANY_LOCAL_PORT

    def _is_ours(self, key: str) -> bool:
        return key == self.keys.public
