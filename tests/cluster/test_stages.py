"""The stage set: its sockets' folder, and how it follows its workers (doubles here)."""

import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tbcluster.cluster import stages
from tbcluster.cluster.stages import (
    MAX_SOCKET_PATH,
    StageExited,
    StageSet,
    StageState,
    StageStatus,
    error_of_kind,
    make_run_dir,
)
from tbcluster.core import StageRange
from tbcluster.errors import (
    CorruptModelError,
    ParityError,
    RequestError,
    StageError,
    TbclusterError,
)
from tbcluster.transport.zeromq import ZmqReceiver
from tbcluster.wire.control import Failed, Loading, Ready, Report, StageSpec

RANGES = [StageRange(0, 2), StageRange(2, 5), StageRange(5, 6)]
READY = Ready(1000, "cpu")


class WorkerDouble:
    """Says what the test makes it say."""

    started: list["WorkerDouble"]

    def __init__(
        self,
        module: str,
        spec: StageSpec,
        on_report: Callable[[Report], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self.module, self.spec, self.say, self.die = module, spec, on_report, on_exit
        self.pid = 1000 + len(self.started)
        self.was_stopped = self.was_joined = False
        self.started.append(self)

    def ask_to_stop(self) -> None:
        self.was_stopped = True

    def join(self) -> None:
        self.was_joined = True


class Bench:
    def __init__(self) -> None:
        self.workers = WorkerDouble.started
        self.losses: list[StageExited] = []
        self.progress: list[list[StageState]] = []
        self.set = StageSet(Path("/model"), RANGES, self._on_progress, self.losses.append)

    def start_all(self) -> None:
        for stage in range(len(RANGES)):
            self.set.start(stage, epoch=1)

    def make_ready(self) -> None:
        self.start_all()
        for worker in self.workers:
            worker.say(READY)
        self.set.await_ready()

    def _on_progress(self, statuses: list[StageStatus]) -> None:
        self.progress.append([status.state for status in statuses])


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(WorkerDouble, "started", [], raising=False)
    monkeypatch.setattr(stages, "Worker", WorkerDouble)
    made = Bench()
    yield made
    made.set.close()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    # Not pytest's tmp_path, which is longer than some of the lengths to try.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        yield Path(name)


def socket_path(endpoint: str) -> str:
    return endpoint.removeprefix("ipc://")


@pytest.mark.parametrize("length", [40, 72, 73, 74, 90, 150])
def test_sockets_can_be_bound_however_long_the_temporary_folder(
    length: int, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = short_folder / ("x" * (length - len(str(short_folder)) - 1))
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    stage_set = StageSet(Path("/model"), RANGES, lambda _: None, lambda _: None)
    try:
        for endpoint in (stage_set.entry, stage_set.results):
            assert len(socket_path(endpoint)) <= MAX_SOCKET_PATH
            ZmqReceiver(endpoint).close()
    finally:
        stage_set.close()
    assert not Path(socket_path(stage_set.entry)).parent.exists()


def test_the_folder_is_private_and_new() -> None:
    first, second = make_run_dir(), make_run_dir()
    assert first != second
    for folder in (first, second):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.rmdir()


def test_each_stage_is_told_its_place(bench: Bench) -> None:
    bench.start_all()
    specs = [worker.spec for worker in bench.workers]
    assert {worker.module for worker in bench.workers} == {"tbcluster.stage"}
    assert [spec.index for spec in specs] == [0, 1, 2]
    assert [spec.layers for spec in specs] == RANGES
    assert {(spec.num_stages, spec.epoch, spec.model_path) for spec in specs} == {(3, 1, "/model")}
    assert specs[0].inbound == bench.set.entry
    # A ring: looped models go round again.
    assert [spec.next_stage for spec in specs] == [specs[i].inbound for i in (1, 2, 0)]
    assert {spec.results for spec in specs} == {bench.set.results}
    assert len({spec.inbound for spec in specs} | {bench.set.results}) == 4


def test_each_stage_is_told_how_it_keeps_its_caches(bench: Bench, tmp_path: Path) -> None:
    bench.start_all()
    assert {(w.spec.kv_bits, w.spec.saved_folder) for w in bench.workers} == {(None, None)}
    bench.workers.clear()
    stage_set = StageSet(
        Path("/model"),
        RANGES,
        lambda _: None,
        lambda _: None,
        kv_bits=4,
        saved_folders=[tmp_path / name for name in ("a", "b", "c")],
    )
    try:
        for stage in range(len(RANGES)):
            stage_set.start(stage, epoch=1)
        assert [worker.spec.kv_bits for worker in bench.workers] == [4, 4, 4]
        folders = [worker.spec.saved_folder for worker in bench.workers]
        assert folders == [str(tmp_path / name) for name in ("a", "b", "c")]
    finally:
        stage_set.close()


def test_progress_until_all_are_ready(bench: Bench) -> None:
    bench.start_all()
    bench.workers[1].say(Loading(3, 9))
    bench.workers[1].say(Ready(77, "gpu", "note"))
    bench.workers[0].say(READY)
    bench.workers[2].say(READY)
    bench.set.await_ready()
    status = bench.set.statuses[1]
    assert (status.loaded_bytes, status.total_bytes) == (3, 9)
    assert (status.memory_bytes, status.backend, status.note) == (77, "gpu", "note")
    assert status.pid == bench.workers[1].pid
    loading, ready = StageState.LOADING, StageState.READY
    assert bench.progress == [
        [loading, loading, loading],
        [loading, ready, loading],
        [ready, ready, loading],
        [ready, ready, ready],
    ]


def test_a_death_while_loading(bench: Bench) -> None:
    bench.start_all()
    bench.workers[2].die(-9)
    with pytest.raises(StageError, match="stage 2 was killed by signal 9 while it was loading"):
        bench.set.await_ready()


def test_a_stage_that_cannot_load_raises_its_own_error(bench: Bench) -> None:
    bench.start_all()
    bench.workers[1].say(Failed("CorruptModelError", "weights are cut short"))
    with pytest.raises(CorruptModelError, match="stage 1: weights are cut short"):
        bench.set.await_ready()


def test_a_loss_is_told_at_once_and_followed_up_later(bench: Bench) -> None:
    bench.make_ready()
    assert not bench.set.dead_stages()
    bench.workers[1].die(4)
    assert bench.losses == [StageExited(1, "ended with status 4")]
    assert bench.set.dead_stages()
    assert bench.set.next_exit() == bench.losses[0]
    assert bench.set.dead_stages() == [1]
    bench.set.start(1, epoch=2)
    assert not bench.set.dead_stages()
    assert bench.set.dead_stages() == []
    assert bench.workers[3].spec.epoch == 2
    bench.workers[3].say(READY)
    assert bench.set.next_exit(until_ready=True) is None


def test_the_last_words_of_a_replaced_worker_are_ignored(bench: Bench) -> None:
    bench.make_ready()
    bench.set.start(1, epoch=2)
    bench.workers[1].say(READY)
    bench.workers[1].say(Failed("StageError", "too late"))
    bench.workers[1].die(1)
    bench.workers[3].say(Loading(1, 2))
    bench.workers[3].die(6)
    exited = bench.set.next_exit(until_ready=True)
    assert exited == StageExited(1, "ended with status 6")


def test_an_interrupt_ends_the_wait(bench: Bench) -> None:
    bench.start_all()
    bench.set.interrupt()
    with pytest.raises(StageError, match="stopped"):
        bench.set.await_ready()


def test_closing_asks_all_before_it_waits(bench: Bench) -> None:
    bench.start_all()
    bench.set.close()
    assert all(worker.was_stopped and worker.was_joined for worker in bench.workers)
    assert not Path(socket_path(bench.set.entry)).parent.exists()


@pytest.mark.parametrize("kind", [ParityError, StageError, RequestError, TbclusterError])
def test_an_error_crosses_by_name(kind: type[TbclusterError]) -> None:
    error = error_of_kind(kind.__name__, "what happened")
    assert type(error) is kind
    assert str(error) == "what happened"


@pytest.mark.parametrize("kind", ["OSError", "__doc__", "__name__", "", "no such thing"])
def test_any_other_name_is_a_stage_error(kind: str) -> None:
    error = error_of_kind(kind, "what happened")
    assert type(error) is StageError
    assert str(error) == f"{kind}: what happened"
