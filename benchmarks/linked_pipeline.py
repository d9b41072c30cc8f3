"""Two stages on two machines (network namespaces), connected by CURVE or in the clear."""

import os
import queue
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.local_pipeline import OneSequence, stage_ranges, token_of
from benchmarks.two_way_stage import TwoWayReceiver, plain_permitted
from tbcluster.cluster.places import make_run_dir
from tbcluster.cluster.supervisor import Worker
from tbcluster.engine.pipeline import Pipeline
from tbcluster.transport.curve import Guard, new_keys
from tbcluster.transport.zeromq import RoutedSender, ZmqReceiver
from tbcluster.wire.control import (
    Bound,
    Failed,
    Loading,
    Ready,
    Report,
    Route,
    Routed,
    Routes,
    StageSpec,
)
from tests.doubles.namespaces import End, Network

REPOSITORY = Path(__file__).parents[1]
ANY_PORT = "tcp://[::]:*"
START_S = 120.0
NEAR, FAR = "near", "far"
PROMPT = tuple(range(4, 12))


class LinkedPipeline:
    """Two stages on two machines, the coordinator beside the first; all sealed or in the clear."""

    def __init__(self, network: Network, ends: Sequence[End], path: Path, stack: ExitStack) -> None:
        self._near, self._far = ends
        self._network = network
        self._path = path
        self._keys = {NEAR: new_keys(), FAR: new_keys()}
        self._reports: queue.SimpleQueue[Report | str] = queue.SimpleQueue()
        self._run_dir = make_run_dir()
        stack.callback(shutil.rmtree, self._run_dir, ignore_errors=True)
        near, far = self._keys[NEAR], self._keys[FAR]
        sealed = ZmqReceiver(ANY_PORT, guard=Guard(near, lambda key: key == far.public))
        plain = ZmqReceiver(ANY_PORT)
        self._results_ports = {True: sealed.port, False: plain.port}
        self._receiver = TwoWayReceiver(sealed, plain)
        stack.callback(self._receiver.close)
        second = self._start(stack, 1, FAR, ANY_PORT)
        ports = [said.port for said in self._await(Bound, 2) if isinstance(said, Bound)]
        self._stage_ports = dict(zip((True, False), ports, strict=True))
        first = self._start(stack, 0, NEAR, f"ipc://{self._run_dir}/stage-0")
        self._workers = [first, second]
        sender = RoutedSender()
        stack.callback(sender.close)
        sender.route(Route(f"ipc://{self._run_dir}/stage-0"))
        self._sequence = OneSequence(Pipeline(sender, self._receiver))
        self._serial = 0

    def ms_per_token(self, num_tokens: int, *, is_sealed: bool) -> float:
        """Milliseconds per token of a new sequence, after its first tokens."""
        self._connect(is_sealed=is_sealed)
        token = self._sequence.begin(PROMPT)
        token = token_of(self._sequence.decode(token))
        started = time.perf_counter()
        for _ in range(num_tokens):
            token = token_of(self._sequence.decode(token))
        return (time.perf_counter() - started) * 1e3 / num_tokens

    def await_ready(self) -> None:
        """Wait until both stages are loaded."""
        self._await(Ready, len(self._workers))

    def _connect(self, *, is_sealed: bool) -> None:
        self._serial += 1
        self._receiver.listen(is_sealed=is_sealed)
        onward = self._route(self._far, self._stage_ports[is_sealed], is_sealed=is_sealed)
        results = self._route(self._near, self._results_ports[is_sealed], is_sealed=is_sealed)
        self._workers[0].route(Routes(self._serial, next_stage=onward))
        self._workers[1].route(Routes(self._serial, results=results))
        self._await(Routed, len(self._workers))

    def _route(self, end: End, port: int, *, is_sealed: bool) -> Route:
        key = self._keys[end.node].public if is_sealed else None
        return Route(f"tcp://{end.ipv4}:{port}", key)

    def _start(self, stack: ExitStack, stage: int, node: str, inbound: str) -> Worker:
        ranges = stage_ranges(self._path, 2)
        spec = StageSpec(
            index=stage,
            num_stages=len(ranges),
            model=str(self._path),
            layers=ranges[stage],
            epoch=1,
            inbound=inbound,
            run_dir=str(self._run_dir),
            keys=self._keys[node],
            senders=(self._keys[NEAR].public,),
        )
        with self._network.inside(node):
            worker = Worker("benchmarks.two_way_stage", spec, self._reports.put, self._reports.put)
        stack.callback(worker.stop)
        return worker

    def _await(self, kind: type[Report], count: int) -> list[Report]:
        said: list[Report] = []
        while len(said) < count:
            report = self._reports.get(timeout=START_S)
            assert not isinstance(report, Failed | str), report
            if isinstance(report, kind):
                said.append(report)
            else:
                assert isinstance(report, Loading | Ready), report
        return said


@contextmanager
def linked_pipeline(network: Network, ends: Sequence[End], path: Path) -> Iterator[LinkedPipeline]:
    """Start it on the two ends of a cable between NEAR and FAR, and end it. The calling thread is
    on the near machine meanwhile."""
    with (
        network.inside(NEAR),
        plain_permitted(),
        _workers_of(REPOSITORY),
        ExitStack() as stack,
    ):
        pipeline = LinkedPipeline(network, ends, path, stack)
        pipeline.await_ready()
        yield pipeline


@contextmanager
def _workers_of(folder: Path) -> Iterator[None]:
    """Let workers find the modules there: the supervisor keeps the current folder out of their
    path."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
