"""Real processes that speak the workers' protocol in a few lines."""

import os
import queue
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tbcluster.checkpoint import Listing
from tbcluster.cluster.agent import workers as workers_module
from tbcluster.cluster.agent.errands import Errand
from tbcluster.cluster.agent.free_workers import FREE_S
from tbcluster.cluster.agent.outbox import OfWorker
from tbcluster.cluster.agent.workers import MODULES, Workers
from tbcluster.core import StageRange
from tbcluster.wire.control import (
    Bound,
    Loading,
    Ready,
    Route,
    Routed,
    Routes,
    StageSpec,
    encode_line,
)
from tbcluster.wire.errands import CalibrateSpec, FetchSpec, SurveySpec
from tbcluster.wire.rack import WorkerEnded, WorkerSaid, WorkerStarted
from tests.doubles.processes import is_alive
from tests.doubles.sites import NODE_KEYS, site_at
from tests.doubles.waiting import DEADLINE_S, wait_until

ROUTES = Routes(5, Route("ipc:///next"), Route("ipc:///results"))
READY = Ready(5, "cpu", "a note")
LOADING = Loading(100, 1000)
# Tells what it was given, at first and later, in the note of its report; answers each line of
# routes. Its last words of a place are still on their way when it is given another.
CHILD = f"""
import os, sys
def tell(spec):
    note = spec.decode().replace(chr(92), "").replace(chr(34), chr(39)).strip()
    os.write(1, {encode_line(READY)!r}.replace(b"a note", note.encode()))
first = sys.stdin.buffer.readline()
if b"large" in first:
    os.write(1, {encode_line(LOADING)!r})
tell(first)
place = 0
while (line := sys.stdin.buffer.readline()) not in (b"", b"stop{chr(92)}n"):
    if b"layers" in line:
        place += 1
        os.write(1, {encode_line(READY)!r})
        os.write(1, {encode_line(Bound(0))!r}.replace(b'place":0', b'place":%d' % place))
        tell(line)
    else:
        os.write(1, {encode_line(Routed(5))!r})
"""


class Machine:
    """The agent's own thread, which does what is posted when the test asks for news."""

    def __init__(
        self,
        run_dir: Path,
        models: Path | None = None,
        module: str = "a_child",
        memory_left: Callable[[], int] = lambda: 1 << 40,
    ) -> None:
        self.posted: queue.SimpleQueue[Errand] = queue.SimpleQueue()
        self.news: list[OfWorker] = []
        modules = dict.fromkeys(MODULES, module)
        self.workers = Workers(
            site_at(run_dir, models), self.posted.put, self.news.append, modules, memory_left
        )

    def hear(self) -> OfWorker:
        """The next news."""
        give_up = time.monotonic() + DEADLINE_S
        while not self.news:
            self.posted.get(timeout=give_up - time.monotonic())()
        return self.news.pop(0)

    def hear_started(self, worker_id: str) -> tuple[int, str]:
        """Its process, and what it was given."""
        started, said = self._hear_unbound(), self._hear_unbound()
        if isinstance(started, WorkerSaid):
            started, said = said, started
        assert isinstance(started, WorkerStarted)
        assert isinstance(said, WorkerSaid)
        assert started.worker_id == said.worker_id == worker_id
        assert isinstance(said.report, Ready)
        assert said.report.note is not None
        return started.pid, said.report.note

    def _hear_unbound(self) -> OfWorker:
        news = self.hear()
        return (
            self.hear() if isinstance(news, WorkerSaid) and isinstance(news.report, Bound) else news
        )

    def settle(self) -> None:
        """Do all that is posted until the other thread has done all that was asked."""
        done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.workers._errands.do(lambda: done.put(None))
        done.get(timeout=DEADLINE_S)
        while not self.posted.empty():
            self.posted.get()()


MakeMachine = Callable[..., Machine]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeMachine]:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "a_child.py").write_text(CHILD)
    made: list[Machine] = []

    def make(**options: object) -> Machine:
        run_dir = tmp_path / f"run-{len(made)}"
        run_dir.mkdir()
        made.append(Machine(run_dir, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.workers.close()


def spec(model: str = "", shard: str = "", index: int = 0) -> StageSpec:
    return StageSpec(
        index, 2, model, StageRange(0, 3), 1, "tcp://[::]:*", "/elsewhere", shard=shard
    )


def test_a_worker_gets_this_nodes_keys_and_folders(machine: MakeMachine, tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    one = machine(models=tmp_path / "models")
    one.workers.start("a", spec("org/tiny"))
    assert one.workers.ids == ("a",)
    pid, given = one.hear_started("a")
    assert is_alive(pid)
    assert NODE_KEYS.public in given
    assert f"'run_dir':'{tmp_path / 'run-0'}'" in given
    assert f"'model':'{tmp_path / 'models' / 'tiny'}'" in given
    assert "/elsewhere" not in given
    one.workers.route("a", ROUTES)
    assert one.hear() == WorkerSaid("a", Routed(5))
    one.workers.stop("a")
    assert one.hear() == WorkerEnded("a", "was ended: the coordinator said so")
    assert one.workers.ids == ()
    assert not is_alive(pid)


def test_a_fetch_gets_this_nodes_store_and_certificate(
    machine: MakeMachine, tmp_path: Path
) -> None:
    one = machine(models=tmp_path / "models")
    fetch = FetchSpec(Listing("org/tiny", "abc", "org/tiny", ()), ())
    one.workers.start("a", fetch)
    pid, given = one.hear_started("a")
    assert f"'store':'{tmp_path / 'run-0' / 'store'}'" in given
    assert f"'folders':['{tmp_path / 'models'}']" in given
    for name in ("certificate.pem", "certificate-key.pem"):
        assert f"{tmp_path / 'run-0' / name}" in given
        assert (tmp_path / "run-0" / name).stat().st_mode & 0o777 == 0o600
    one.workers.stop("a")
    assert one.hear() == WorkerEnded("a", "was ended: the coordinator said so")
    assert not is_alive(pid)


@pytest.mark.parametrize("kind", [FetchSpec, SurveySpec, CalibrateSpec, StageSpec])
def test_what_runs_for_a_spec_exists(kind: type) -> None:
    found = find_spec(MODULES[kind])
    assert found is not None
    is_package = found.submodule_search_locations is not None
    assert not is_package or find_spec(f"{MODULES[kind]}.__main__") is not None


def test_a_death_is_told_and_leaves_no_socket(machine: MakeMachine, tmp_path: Path) -> None:
    one = machine()
    inbound = tmp_path / "run-0" / "a"
    one.workers.start("a", replace(spec(), inbound=f"ipc://{inbound}"))
    pid, _ = one.hear_started("a")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(inbound))
    os.kill(pid, signal.SIGKILL)
    assert one.hear() == WorkerEnded("a", "was killed by signal 9")
    assert not inbound.exists()


def test_a_worker_that_is_started_twice_runs_once(machine: MakeMachine) -> None:
    one = machine()
    one.workers.start("a", spec())
    one.workers.start("a", spec())
    one.hear_started("a")
    one.settle()
    assert one.news == []
    assert one.workers.ids == ("a",)


def test_one_that_cannot_be_started_has_ended(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    one = machine()
    one.workers.start("a", spec())
    ended = one.hear()
    assert isinstance(ended, WorkerEnded)
    assert "could not be started: cannot start a worker process: No such file" in ended.what


def test_one_that_does_not_run_is_not_stopped_or_routed(machine: MakeMachine) -> None:
    one = machine()
    one.workers.stop("a")
    assert one.hear() == WorkerEnded("a", "does not run here")
    one.workers.route("a", ROUTES)
    one.settle()
    assert one.news == []


def test_a_worker_that_is_freed_takes_another_place(machine: MakeMachine) -> None:
    one = machine()
    one.workers.start("a", spec(shard="x"))
    pid, _ = one.hear_started("a")
    one.workers.free("a", 0.0)
    assert one.hear() == WorkerEnded("a", "was freed for another plan")
    assert one.workers.ids == ()
    one.workers.start("b", spec(shard="x", index=1))
    assert one.workers.ids == ("b",)
    again, given = one.hear_started("b")
    assert again == pid
    assert NODE_KEYS.public in given
    assert "'index':1" in given
    one.workers.route("b", ROUTES)
    assert one.hear() == WorkerSaid("b", Routed(5))
    os.kill(pid, signal.SIGKILL)
    assert one.hear() == WorkerEnded("b", "was killed by signal 9")
    assert one.workers.ids == ()


def test_what_a_free_worker_says_and_how_it_ends_is_told_nobody(machine: MakeMachine) -> None:
    one = machine()
    one.workers.start("a", spec(shard="x"))
    pid, _ = one.hear_started("a")
    one.workers.route("a", ROUTES)
    one.workers.free("a", 0.0)
    assert one.hear() == WorkerEnded("a", "was freed for another plan")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: one.settle() or len(one.workers._free) == 0, "its end is noted")
    assert one.news == []
    one.workers.start("b", spec(shard="x"))
    assert one.hear_started("b")[0] != pid


def test_a_free_worker_makes_room_for_another_part_of_its_model(machine: MakeMachine) -> None:
    one = machine()
    pids = {}
    for name, model in (("a", "m"), ("b", "n")):
        one.workers.start(name, spec(model, shard=name))
        pids[name], _ = one.hear_started(name)
    one.workers.release_all("it ended", 0.0)
    one.workers.start("c", spec("m", shard="c"))
    one.hear_started("c")
    assert not is_alive(pids["a"])
    assert is_alive(pids["b"])


@pytest.mark.parametrize(("left_bytes", "is_kept"), [(899, False), (900, True)])
def test_a_free_worker_makes_room_for_another_model_that_needs_it(
    machine: MakeMachine, left_bytes: int, is_kept: bool
) -> None:
    one = machine(memory_left=lambda: left_bytes)
    one.workers.start("a", spec("m", shard="a"))
    pid, _ = one.hear_started("a")
    one.workers.release_all("it ended", 0.0)
    one.workers.start("b", spec("large", shard="b"))
    assert {type(one.hear()), type(one.hear())} == {WorkerStarted, WorkerSaid}
    one.hear()
    one.settle()
    assert is_alive(pid) == is_kept


def test_a_free_worker_ends_when_nobody_takes_it(machine: MakeMachine) -> None:
    one = machine()
    one.workers.start("a", spec(shard="x"))
    pid, _ = one.hear_started("a")
    one.workers.free("a", 100.0)
    one.hear()
    assert one.workers.next_at() == 100.0 + FREE_S
    one.workers.tidy(99.0 + FREE_S)
    one.settle()
    assert is_alive(pid)
    one.workers.tidy(100.0 + FREE_S)
    one.settle()
    assert not is_alive(pid)
    assert one.news == []


def test_errands_are_ended_where_stages_would_be_freed(machine: MakeMachine) -> None:
    one = machine()
    fetch = FetchSpec(Listing("org/tiny", "abc", "org/tiny", ()), ())
    for name in ("a", "b"):
        one.workers.start(name, fetch)
        one.hear_started(name)
    one.workers.free("a", 0.0)
    assert one.hear() == WorkerEnded("a", "was ended: the coordinator said so")
    one.workers.release_all("another coordinator is here", 0.0)
    assert one.workers.ids == ()
    one.settle()
    assert one.news == []


def test_all_are_ended_before_another_is_started(machine: MakeMachine) -> None:
    one = machine()
    one.workers.start("a", spec())
    one.workers.start("b", spec())
    one.workers.release_all("there is another coordinator", 0.0)
    one.workers.start("a", spec())
    pid, _ = one.hear_started("a")
    assert is_alive(pid)
    one.settle()
    assert one.news == []
    assert one.workers.ids == ("a",)


def test_the_ends_of_all_are_told_but_of_free_ones(machine: MakeMachine) -> None:
    one = machine()
    for worker_id in ("a", "b"):
        one.workers.start(worker_id, spec())
        one.hear_started(worker_id)
    one.workers.start("c", spec(shard="x"))
    pid, _ = one.hear_started("c")
    one.workers.free("c", 0.0)
    one.hear()
    one.workers.stop_all("nobody asks for it")
    ends = {one.hear(), one.hear()}
    assert ends == {WorkerEnded(name, "was ended: nobody asks for it") for name in ("a", "b")}
    one.settle()
    assert not is_alive(pid)
    assert one.news == []


def test_the_folder_of_sockets_is_made_again(machine: MakeMachine, tmp_path: Path) -> None:
    one = machine()
    shutil.rmtree(tmp_path / "run-0")
    one.workers.start("a", spec())
    one.hear_started("a")
    assert (tmp_path / "run-0").stat().st_mode & 0o777 == 0o700
    one.workers.close()
    assert not (tmp_path / "run-0").exists()


def test_the_machine_is_kept_awake_while_there_are_workers(
    machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    awake: list[str] = []

    def keep_awake(pid: int) -> Callable[[], None]:
        assert pid == os.getpid()
        awake.append("awake")
        return lambda: awake.append("asleep")

    monkeypatch.setattr(workers_module, "keep_awake", keep_awake)
    one = machine()
    for worker_id in ("a", "b"):
        one.workers.start(worker_id, spec())
        one.hear_started(worker_id)
    one.workers.stop("a")
    one.hear()
    one.settle()
    assert awake == ["awake"]
    one.workers.stop("b")
    one.hear()
    one.settle()
    assert awake == ["awake", "asleep"]


REUSABLE = "a"
COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(["start", "stop", "free", "route", "stop all", "release all"]),
        st.sampled_from(["a", "b"]),
    ),
    max_size=6,
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(COMMANDS)
def test_there_are_never_two_of_one_id(
    machine: MakeMachine, commands: list[tuple[str, str]]
) -> None:
    one = machine()
    expected: set[str] = set()
    running: dict[str, int] = {}
    kept: set[int] = set()

    def let_go(worker_id: str) -> None:
        if worker_id in expected and worker_id == REUSABLE:
            kept.add(running.pop(worker_id))
        expected.discard(worker_id)

    for command, worker_id in commands:
        match command:
            case "start":
                one.workers.start(worker_id, spec(shard="x" if worker_id == REUSABLE else ""))
                expected.add(worker_id)
            case "stop":
                one.workers.stop(worker_id)
                expected.discard(worker_id)
            case "route":
                one.workers.route(worker_id, ROUTES)
            case "free":
                one.workers.free(worker_id, 0.0)
                let_go(worker_id)
            case "stop all":
                one.workers.stop_all("now")
                expected.clear()
                kept.clear()
            case "release all":
                one.workers.release_all("now", 0.0)
                for name in list(expected):
                    let_go(name)
        one.settle()
        for news in one.news:
            if isinstance(news, WorkerStarted):
                assert news.worker_id not in running or not is_alive(running[news.worker_id])
                running[news.worker_id] = news.pid
                if news.worker_id == REUSABLE and kept:
                    assert news.pid in kept
                    kept.remove(news.pid)
        one.news.clear()
        assert set(one.workers.ids) == expected
        assert {name for name, pid in running.items() if is_alive(pid)} == expected
