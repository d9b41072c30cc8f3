"""The loop of a stage worker: one compute thread; libzmq's own thread sends and receives.

A worker lives exactly as long as the process that started it wants it to: its standard input is
watched, and when that ends the worker ends, whatever it is doing.
"""

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, NoReturn

from tbcluster.errors import TbclusterError, WireError
from tbcluster.model.device import peak_memory_bytes, prepare_device
from tbcluster.model.grammar_mask import masks_of_model
from tbcluster.model.loading import load_stage
from tbcluster.model.source import find_model
from tbcluster.stage.cache_store import CacheStore
from tbcluster.stage.executor import BegunStep, StageExecutor
from tbcluster.stage.rules_store import RulesStore
from tbcluster.transport.channel import Receiver, Sender
from tbcluster.transport.curve import Guard
from tbcluster.transport.zeromq import RoutedSender, ZmqReceiver
from tbcluster.wire.control import (
    STOP_LINE,
    Bound,
    CurveKeys,
    Failed,
    Loading,
    Ready,
    Report,
    Routed,
    Routes,
    Spec,
    StageSpec,
    decode_order,
    decode_spec,
    encode_line,
)
from tbcluster.wire.messages import Result, Step, decode_step, encode_result, encode_step

logger = logging.getLogger(__name__)

MAX_LOGGED_DROPS = 100


class Reporter:
    """Writes reports to what was standard output; prints of libraries go to standard error."""

    def __init__(self) -> None:
        self._out: BinaryIO = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        self._lock = threading.Lock()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def __call__(self, report: Report) -> None:
        """Thread-safe."""
        with self._lock:
            self._out.write(encode_line(report))


def meet_parent() -> tuple[RawIOBase, Reporter]:
    """What every worker process does first: take the pipes to its parent.

    The input is unbuffered because a thread will still be reading it when the interpreter exits,
    which Python does not allow with a buffered one.
    """
    return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False), Reporter()


def read_spec(stdin: RawIOBase, kind: type[Spec]) -> Spec:
    """What the parent wants done. One that is gone before it has said so ends this process."""
    line = stdin.readline()
    if not line.endswith(b"\n"):
        sys.exit(0)
    return decode_spec(line, kind)


def follow_parent(
    stdin: RawIOBase, run_dir: Path | None, on_line: Callable[[bytes], None] = lambda _: None
) -> None:
    """End this process when the parent says so or is gone; in the latter case the sockets of the
    run are nobody's any more and are removed. `on_line` gets whatever else the parent says."""

    def watch() -> None:
        while (line := stdin.readline()) not in (b"", STOP_LINE):
            try:
                on_line(line)
            except TbclusterError as error:
                logger.error("%s", error)
        if run_dir is not None and line != STOP_LINE:
            shutil.rmtree(run_dir, ignore_errors=True)
        # Past Python's own exit, which would wait for the compute thread.
        os._exit(0)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def main() -> int:
    """Entry point of `python -m tbcluster.stage`."""
    stdin, report = meet_parent()
    logging.basicConfig(format="tbcluster stage: %(levelname)s %(message)s", level=logging.WARNING)
    spec = read_spec(stdin, StageSpec)
    exits = Exits(spec.keys, report)
    follow_parent(stdin, Path(spec.run_dir), exits.follow)
    try:
        serve(spec, Outbound(exits.to_next, exits.to_coordinator), report)
    except (TbclusterError, OSError, RuntimeError, MemoryError) as error:
        report(Failed(type(error).__name__, str(error)))
        return 1
    return 0


def serve(spec: StageSpec, outbound: "Outbound", report: Reporter) -> None:
    """Load the stage and run steps until the process is ended."""
    device = prepare_device()
    receiver = ZmqReceiver(spec.inbound, guard=guard_of(spec))
    report(Bound(receiver.port))
    path = find_model(spec.model).path
    is_last = spec.index == spec.num_stages - 1
    rules = RulesStore(masks_of_model(path)) if is_last else None
    model = load_stage(
        path,
        spec.layers,
        device,
        lambda loaded, total: report(Loading(loaded, total)),
        spec.kv_bits,
    )
    saved = Path(spec.saved_folder) if spec.saved_folder is not None else None
    caches = CacheStore(model.make_cache, saved)
    executor = StageExecutor(model, caches, spec.index, spec.num_stages, spec.epoch, rules=rules)
    report(Ready(peak_memory_bytes(), device.backend, device.note))
    run_steps(executor, receiver, outbound, spec.index)


def guard_of(spec: StageSpec) -> Guard | None:
    """Who may send steps; None where only this machine can."""
    if spec.keys is None or spec.inbound.startswith("ipc:"):
        return None
    senders = frozenset(spec.senders)
    return Guard(spec.keys, senders.__contains__)


class Outbound:
    """Where finished steps go."""

    def __init__(self, to_next: Sender, to_coordinator: Sender) -> None:
        self._to_next = to_next
        self._to_coordinator = to_coordinator

    def send(self, output: Step | Result) -> None:
        """Send a step on, or a result back."""
        if isinstance(output, Result):
            self._to_coordinator.send(encode_result(output))
        else:
            self._to_next.send(encode_step(output))


class Exits:
    """The connections to the next stage and to the coordinator, which follow the parent's
    `Routes`."""

    def __init__(self, keys: CurveKeys | None, report: Reporter) -> None:
        self._report = report
        self.to_next = RoutedSender(keys)
        self.to_coordinator = RoutedSender(keys)

    def follow(self, line: bytes) -> None:
        """Send whatever comes after this call along the `Routes` in this line.

        Raises:
            WireError: It holds something else.
            TrustError: A route would leave the machine in the clear.
        """
        routes = decode_order(line)
        if not isinstance(routes, Routes):
            return
        for sender, route in (
            (self.to_next, routes.next_stage),
            (self.to_coordinator, routes.results),
        ):
            if route is not None:
                sender.route(route)
        self._report(Routed(routes.serial))


def run_steps(
    executor: StageExecutor, receiver: Receiver, outbound: Outbound, index: int
) -> NoReturn:
    """Receive, compute, send. The graph of a step that is there already is built while MLX still
    computes the one before it; it is started only once that one is sent on, because handing MLX a
    graph can take until most of it is computed."""
    steps = StepReader(receiver, executor, index)
    begun: BegunStep | None = None
    while True:
        step = steps.next(waits=begun is None)
        following = executor.begin(step, is_alone=begun is None) if step is not None else None
        if begun is not None:
            outbound.send(executor.finish(begun))
        if following is not None:
            executor.start(following)
        begun = following


class StepReader:
    """Takes steps from a receiver; what does not parse is dropped, counted and logged."""

    def __init__(self, receiver: Receiver, executor: StageExecutor, index: int) -> None:
        self._receiver = receiver
        self._executor = executor
        self._index = index
        self._num_dropped = 0

    def next(self, *, waits: bool) -> Step | None:
        """The next step; None when there is none now, or it did not parse."""
        frames = self._receiver.receive(0)
        if frames is None and waits:
            started = time.perf_counter()
            frames = self._receiver.receive(None)
            self._executor.waited(time.perf_counter() - started)
        if frames is None:
            return None
        try:
            return decode_step(frames)
        except WireError as error:
            self._num_dropped += 1
            if self._num_dropped <= MAX_LOGGED_DROPS:
                logger.warning(
                    "stage %d dropped message %d: %s", self._index, self._num_dropped, error
                )
            return None
