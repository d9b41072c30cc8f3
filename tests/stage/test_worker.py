"""Real stage workers: one that is given another place, and ones that do not get any further."""

import os
import queue
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tbcluster.cluster.places import make_run_dir
from tbcluster.cluster.pulse import TICK_S, Patience
from tbcluster.cluster.supervisor import Worker
from tbcluster.core import MicroBatch, Sample, SamplingParams, StageRange
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import CorruptModelError, StageMemoryError
from tbcluster.model.device import prepare_device
from tbcluster.model.loading import load_stage
from tbcluster.stage.cache_store import CacheStore
from tbcluster.stage.executor import StageExecutor
from tbcluster.stage.worker import failure_of
from tbcluster.transport.curve import new_keys
from tbcluster.transport.zeromq import ZmqReceiver, ZmqSender
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
    encode_line,
)
from tbcluster.wire.messages import Result, Step, decode_result, encode_step
from tbcluster.wire.operations import CacheOperation, NewCache
from tests.doubles.waiting import wait_until

DEADLINE_S = 60.0
NUM_LAYERS, CUT = 8, 4
LAST_HALF = StageRange(CUT, NUM_LAYERS)
PROMPT = (40, 41, 42, 43, 44, 45)
NUM_TOKENS = 4
# Takes seconds: the model was made for 1,024 tokens.
LONG_PROMPT = 6000
ANY_LOCAL_PORT = "tcp://127.0.0.1:*"
# Less than the default; more than a watcher that was stopped may count of that time.
PATIENCE = Patience(ready_s=2.0)


class Child:
    """A worker and what it says: reports, then how it ended."""

    def __init__(self, spec: StageSpec, patience: Patience = PATIENCE) -> None:
        self._heard: queue.SimpleQueue[Report | str] = queue.SimpleQueue()
        self.worker = Worker(
            "tbcluster.stage", spec, self._heard.put, self._heard.put, patience=patience
        )

    def assign(self, spec: StageSpec) -> None:
        self.worker.assign(spec, self._heard.put)

    def hear(self) -> Report | str:
        """The next news that is not about loading."""
        while isinstance(news := self._heard.get(timeout=DEADLINE_S), Loading):
            pass
        return news

    def hears_nothing(self) -> bool:
        return self._heard.empty()

    def become_ready(self) -> int:
        """The port that it has bound."""
        bound, ready = self.hear(), self.hear()
        assert isinstance(bound, Bound), bound
        assert isinstance(ready, Ready), ready
        return bound.port


class Half:
    """The first half of the model, in this process, and the ends of the connections to a worker
    that has the other one."""

    def __init__(self, epoch: int, cuts: tuple[int, ...] = (0, CUT)) -> None:
        ranges = [StageRange(*pair) for pair in pairwise(cuts)]
        self._epoch = epoch
        self._executors = [
            _executor(layers, index, len(ranges) + 1, epoch) for index, layers in enumerate(ranges)
        ]
        self._step_id = 0

    def step(self, batch: MicroBatch | None, *operations: CacheOperation) -> Step:
        """What goes on to the worker."""
        step = Step(self._epoch, self._step_id, operations, batch)
        self._step_id += 1
        for executor in self._executors:
            output = executor.run(step)
            assert isinstance(output, Step)
            assert output.error is None
            step = output
        return step

    def generate(self, sender: ZmqSender, results: ZmqReceiver) -> list[int]:
        """The greedy continuation of the prompt."""
        tokens = list(PROMPT)
        batch = MicroBatch(1, PROMPT, (Sample(SamplingParams(), len(PROMPT)),))
        sender.send(encode_step(self.step(batch, NewCache(1))))
        for _ in range(NUM_TOKENS):
            result = received(results)
            assert result.error is None
            tokens.append(result.sampled[0].token)
            batch = MicroBatch(1, (tokens[-1],), (Sample(SamplingParams(), len(tokens)),))
            sender.send(encode_step(self.step(batch)))
        assert received(results).error is None
        return tokens


def _executor(layers: StageRange, index: int, num_stages: int, epoch: int) -> StageExecutor:
    model = load_stage(MODEL_PATH, layers, prepare_device())
    caches = CacheStore(model.make_cache, None)
    return StageExecutor(model, caches, index, num_stages, epoch)


def received(results: ZmqReceiver) -> Result:
    frames = results.receive(DEADLINE_S)
    assert frames is not None
    return decode_result(frames)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    folder = make_run_dir()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


MakeSpec = Callable[..., StageSpec]


@pytest.fixture
def make_spec(run_dir: Path) -> MakeSpec:
    """Specs of the model's second half, each with an endpoint of its own."""

    def make(index: int = 1, num_stages: int = 2, epoch: int = 1, **others: object) -> StageSpec:
        fields: dict[str, object] = {
            "inbound": f"ipc://{run_dir}/{secrets.token_hex(4)}",
            "layers": LAST_HALF,
            "shard": "the second half",
        }
        fields |= others
        return StageSpec(
            index, num_stages, str(MODEL_PATH), epoch=epoch, run_dir=str(run_dir), **fields
        )

    return make


@pytest.fixture
def start() -> Iterator[Callable[[StageSpec], Child]]:
    """Starts workers; none outlives the test."""
    children: list[Child] = []

    def start_child(spec: StageSpec) -> Child:
        children.append(Child(spec))
        return children[-1]

    yield start_child
    for child in children:
        if psutil.pid_exists(child.worker.pid):
            os.kill(child.worker.pid, signal.SIGCONT)
        child.worker.stop()


Start = Callable[[StageSpec], Child]


def results_at(run_dir: Path) -> tuple[ZmqReceiver, Route]:
    route = Route(f"ipc://{run_dir}/results-{secrets.token_hex(4)}")
    return ZmqReceiver(route.endpoint), route


def test_another_place(
    start: Start, make_spec: MakeSpec, run_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """From stage 1 of 2 to stage 2 of 3, under another coordinator, whose epochs begin anew."""
    first = make_spec(epoch=7)
    child = start(first)
    child.become_ready()
    old_results, route = results_at(run_dir)
    child.worker.route(Routes(1, None, route))
    assert child.hear() == Routed(1)
    old_sender = ZmqSender(Route(first.inbound))
    half = Half(epoch=7)
    tokens = half.generate(old_sender, old_results)

    # Of no concern to it.
    child.assign(make_spec(shard="another"))
    child.assign(make_spec(shard=""))
    # Between other machines, with keys.
    keys, coordinator = new_keys(), new_keys()
    sealed = make_spec(
        2, 3, epoch=3, inbound=ANY_LOCAL_PORT, keys=keys, senders=(coordinator.public,)
    )
    child.assign(sealed)
    port = child.become_ready()
    results, route = results_at(run_dir)
    child.worker.route(Routes(9, None, route))
    assert child.hear() == Routed(9)

    # Nothing that comes along the old way reaches it, and its caches are empty.
    old_sender.send(encode_step(half.step(None)))
    sender = ZmqSender(Route(f"tcp://127.0.0.1:{port}", keys.public), keys=coordinator)
    sender.send(encode_step(Step(3, 0, (), MicroBatch(1, (5,)))))
    assert received(results).error == "stage 2: no cache 1 on this stage"
    later = Half(epoch=3, cuts=(0, 2, CUT))
    later.step(None)
    assert later.generate(sender, results) == tokens
    assert old_results.receive(0) is None
    assert results.receive(0) is None
    assert child.hears_nothing()
    assert child.worker.spec == sealed
    shown = capfd.readouterr().err
    assert "it needs shard 'another', and this worker holds 'the second half'" in shown
    for end in (old_results, old_sender, results, sender):
        end.close()


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (StageMemoryError("all of it"), Failed("StageMemoryError", "all of it")),
        (MemoryError("so much"), Failed("StageMemoryError", "there is too little memory: so much")),
        (CorruptModelError("out of memory"), Failed("CorruptModelError", "out of memory")),
        (FileNotFoundError("gone"), Failed("FileNotFoundError", "gone")),
    ],
)
def test_failures_for_lack_of_memory_have_a_kind_of_their_own(
    error: Exception, failed: Failed
) -> None:
    assert failure_of(error) == failed


def test_a_place_that_is_given_while_it_loads(
    start: Start, make_spec: MakeSpec, run_dir: Path
) -> None:
    """The last one counts, and what is heard is about that one."""
    child = start(make_spec())
    child.assign(make_spec())
    last = make_spec(epoch=5)
    child.assign(last)
    # Nothing is heard of the places that it never took.
    assert child.hear() == Bound(0, 2)
    assert isinstance(child.hear(), Ready)
    results, route = results_at(run_dir)
    child.worker.route(Routes(1, None, route))
    assert child.hear() == Routed(1)
    sender = ZmqSender(Route(last.inbound))
    assert len(Half(epoch=5).generate(sender, results)) == len(PROMPT) + NUM_TOKENS
    results.close()
    sender.close()


def test_one_that_is_stopped_is_killed(start: Start, make_spec: MakeSpec) -> None:
    child = start(make_spec())
    child.become_ready()
    os.kill(child.worker.pid, signal.SIGSTOP)
    assert child.hear() == "was killed: it did not answer for 2 s"


def test_one_that_is_stuck_in_a_step_is_killed(start: Start, make_spec: MakeSpec) -> None:
    spec = make_spec(0, 1, layers=StageRange(0, NUM_LAYERS), step_limit_s=0.2)
    child = start(spec)
    child.become_ready()
    sender = ZmqSender(Route(spec.inbound))
    prompt = (7,) * LONG_PROMPT
    sender.send(encode_step(Step(1, 0, (NewCache(1),), MicroBatch(1, prompt))))
    assert child.hear() == "was killed: a step took longer than 0.2 s"
    sender.close()


PARENT = """
import sys
from tbcluster.cluster.pulse import Patience
from tbcluster.cluster.supervisor import Worker
from tbcluster.wire.control import Ready, StageSpec, decode_spec

def tell(news):
    if isinstance(news, (str, Ready)):
        print(news if isinstance(news, str) else "ready", flush=True)

spec = decode_spec(sys.stdin.buffer.readline(), StageSpec)
worker = Worker("tbcluster.stage", spec, tell, tell, patience=Patience(ready_s=2.0))
sys.stdin.read()
worker.stop()
"""


def test_a_parent_that_was_stopped_itself_kills_nobody(make_spec: MakeSpec) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(encode_line(make_spec()))
        parent.stdin.flush()
        assert parent.stdout.readline() == b"ready\n"
        parent.send_signal(signal.SIGSTOP)
        passes(PATIENCE.ready_s + 1.0)
        parent.send_signal(signal.SIGCONT)
        passes(3 * TICK_S)
        # Its end is told once it is asked to end.
        parent.stdin.close()
        assert parent.stdout.read() == b"ended with status 0\n"


def passes(seconds: float) -> None:
    """Time in which nothing can be observed."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, "time passes")
