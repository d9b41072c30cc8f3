"""The stage set: how it starts, connects and follows its workers (doubles here)."""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tbcluster.cluster.news import (
    Loss,
    NodesChanged,
    PathImproved,
    PathLost,
    StageBroken,
    StageExited,
)
from tbcluster.cluster.places import COORDINATOR, OnExit, OnReport
from tbcluster.cluster.stage_status import StageState, StageStatus
from tbcluster.cluster.stage_work import StageWork
from tbcluster.cluster.stages import Inbox, StageSet, error_of_kind
from tbcluster.core import StageRange
from tbcluster.errors import (
    CorruptModelError,
    NoPathError,
    ParityError,
    RequestError,
    StageError,
    TbclusterError,
)
from tbcluster.transport.zeromq import RoutedSender
from tbcluster.wire.control import (
    Bound,
    Failed,
    Loading,
    Ready,
    Route,
    Routed,
    Routes,
    StageSpec,
)

RANGES = [StageRange(0, 2), StageRange(2, 5), StageRange(5, 6)]
MODELS = ["/model", "/model", "/other"]
READY = Ready(1000, "cpu")
RESULTS_PORT = 99


class WorkerDouble:
    """Says what the test makes it say."""

    def __init__(self, pid: int, spec: StageSpec, say: OnReport, die: OnExit) -> None:
        self.pid, self.spec, self.say, self.die = pid, spec, say, die
        self.told: list[Routes] = []
        self.obeys = True
        self.was_stopped = self.was_joined = self.was_freed = False

    def route(self, routes: Routes) -> None:
        self.told.append(routes)
        if self.obeys:
            self.say(Routed(routes.serial))

    def ask_to_stop(self) -> None:
        self.was_stopped = True

    def free(self) -> None:
        self.was_freed = True

    def join(self) -> None:
        self.was_joined = True

    def come_up(self) -> None:
        self.say(Bound(1000 + self.pid))
        self.say(READY)


class PlacesDouble:
    """Workers that are doubles, and ways that the test opens and closes: each hop has as many as
    are in `ways`, best first."""

    keys = None
    results = "inproc://results"
    results_guard = None

    def __init__(self) -> None:
        self.workers: list[WorkerDouble] = []
        self.ways = ["fast", "slow"]
        self.tell_change: Callable[[], None] = lambda: None

    def name(self, stage: int) -> str:
        return f"node{stage}"

    def launch(self, spec: StageSpec, on_report: OnReport, on_exit: OnExit) -> WorkerDouble:
        self.workers.append(WorkerDouble(len(self.workers) + 1, spec, on_report, on_exit))
        return self.workers[-1]

    def route(self, source: int, target: int, port: int) -> Route:
        if not self.ways:
            raise NoPathError("all are cut")
        return Route(f"inproc://{self.ways[0]}-{source}-{target}-{port}")

    def is_open(self, source: int, target: int, route: Route) -> bool:
        return any(way in route.endpoint for way in self.ways)

    def follow(self, on_change: Callable[[], None]) -> None:
        self.tell_change = on_change

    def close(self) -> None:
        pass

    def change(self, *ways: str) -> None:
        self.ways = list(ways)
        self.tell_change()


class Bench:
    def __init__(self, work: StageWork | None = None, inbox: Inbox | None = None) -> None:
        self.places = PlacesDouble()
        self.workers = self.places.workers
        self.losses: list[Loss] = []
        self.progress: list[list[StageState]] = []
        self.sender = RoutedSender()
        self.set = StageSet(
            work or StageWork(MODELS, RANGES),
            self.places,
            self.sender,
            RESULTS_PORT,
            self._on_progress,
            self.losses.append,
            inbox,
        )

    def start_all(self) -> None:
        for stage in range(len(RANGES)):
            self.set.start(stage, epoch=1)

    def make_ready(self) -> None:
        self.start_all()
        for worker in self.workers:
            worker.come_up()
        self.set.await_ready()

    def close(self) -> None:
        self.set.close()
        self.sender.close()

    def _on_progress(self, statuses: list[StageStatus]) -> None:
        self.progress.append([status.state for status in statuses])


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def test_each_stage_is_told_its_place(bench: Bench) -> None:
    bench.start_all()
    specs = [worker.spec for worker in bench.workers]
    assert [spec.index for spec in specs] == [0, 1, 2]
    assert [spec.layers for spec in specs] == RANGES
    assert {(spec.num_stages, spec.epoch) for spec in specs} == {(3, 1)}
    assert [spec.model for spec in specs] == MODELS
    assert {(spec.kv_bits, spec.saved_folder) for spec in specs} == {(None, None)}
    assert [status.node for status in bench.set.statuses] == ["node0", "node1", "node2"]


def test_each_stage_is_told_how_it_keeps_its_caches(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    bench = Bench(StageWork(MODELS, RANGES, kv_bits=4, saved_folders=folders))
    try:
        bench.start_all()
        assert [worker.spec.kv_bits for worker in bench.workers] == [4, 4, 4]
        assert [worker.spec.saved_folder for worker in bench.workers] == list(map(str, folders))
    finally:
        bench.close()


def test_stages_are_connected_once_all_have_bound(bench: Bench) -> None:
    bench.start_all()
    for worker in bench.workers[:2]:
        worker.come_up()
    bench.workers[2].say(Loading(1, 2))
    bench.workers[2].die("left")
    assert bench.set.next_news() == StageExited(2, "left", "node2")
    assert not any(worker.told for worker in bench.workers)


def test_who_sends_to_whom(bench: Bench) -> None:
    bench.make_ready()
    routes = [worker.told[-1] for worker in bench.workers]
    assert [r.next_stage and r.next_stage.endpoint for r in routes] == [
        "inproc://fast-0-1-1002",
        "inproc://fast-1-2-1003",
        None,
    ]
    results = f"inproc://fast-2-{COORDINATOR}-{RESULTS_PORT}"
    assert [r.results and r.results.endpoint for r in routes] == [None, None, results]
    assert {r.serial for r in routes} == {1}


def test_a_looped_model_goes_round() -> None:
    bench = Bench(StageWork(MODELS, RANGES, is_looped=True))
    try:
        bench.make_ready()
        onward = bench.workers[2].told[-1].next_stage
        assert onward is not None
        assert onward.endpoint == "inproc://fast-2-0-1001"
    finally:
        bench.close()


def test_a_worker_that_is_not_connected_is_not_ready(bench: Bench) -> None:
    bench.start_all()
    bench.workers[1].obeys = False
    for worker in bench.workers:
        worker.come_up()
    bench.workers[0].die("left")
    assert bench.set.next_news(until_ready=True) == StageExited(0, "left", "node0")


def test_progress_until_all_are_ready(bench: Bench) -> None:
    bench.start_all()
    bench.workers[1].say(Loading(3, 9))
    bench.workers[1].say(Ready(77, "gpu", "note"))
    bench.workers[0].say(READY)
    bench.workers[2].say(READY)
    for worker in bench.workers:
        worker.say(Bound(1))
    bench.set.await_ready()
    status = bench.set.statuses[1]
    assert (status.loaded_bytes, status.total_bytes) == (3, 9)
    assert (status.memory_bytes, status.backend, status.note) == (77, "gpu", "note")
    assert status.pid == bench.workers[1].pid
    loading, ready = StageState.LOADING, StageState.READY
    assert bench.progress[:4] == [
        [loading, loading, loading],
        [loading, ready, loading],
        [ready, ready, loading],
        [ready, ready, ready],
    ]


def test_a_death_while_loading(bench: Bench) -> None:
    bench.start_all()
    bench.workers[2].die("was killed by signal 9")
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
    bench.workers[1].die("ended with status 4")
    assert bench.losses == [StageExited(1, "ended with status 4", "node1")]
    assert bench.set.dead_stages()
    assert bench.set.next_news() == bench.losses[0]
    assert bench.set.dead_stages() == [1]
    bench.set.start(1, epoch=2)
    assert not bench.set.dead_stages()
    assert bench.set.dead_stages() == []
    assert bench.workers[3].spec.epoch == 2
    bench.workers[3].come_up()
    assert bench.set.next_news(until_ready=True) is None
    # Its neighbour has to be told of its new port.
    assert bench.workers[0].told[-1].next_stage == Route("inproc://fast-0-1-1004")


def test_the_last_words_of_a_replaced_worker_are_ignored(bench: Bench) -> None:
    bench.make_ready()
    bench.set.start(1, epoch=2)
    bench.workers[1].say(READY)
    bench.workers[1].say(Failed("StageError", "too late"))
    bench.workers[1].die("ended with status 1")
    bench.workers[3].say(Loading(1, 2))
    bench.workers[3].die("ended with status 6")
    exited = bench.set.next_news(until_ready=True)
    assert exited == StageExited(1, "ended with status 6", "node1")


def test_the_end_of_a_worker_that_was_replaced_is_no_loss(bench: Bench) -> None:
    bench.make_ready()
    bench.set.start(1, epoch=2)
    bench.workers[1].die("ended late")
    assert bench.losses == []
    bench.set.leave(())
    bench.places.change()
    for worker in bench.workers:
        worker.die("was told to end")
    assert bench.losses == []
    assert bench.set.next_news(timeout_s=0.01) is None


def test_whoever_waits_for_news_waits_no_longer_for_what_is_none(bench: Bench) -> None:
    bench.start_all()
    stop = threading.Event()

    def say() -> None:
        while not stop.wait(0.01):
            bench.workers[0].say(Loading(1, 2))

    thread = threading.Thread(target=say)
    thread.start()
    before = bench.set.heard_at
    try:
        assert bench.set.next_news(until_ready=True, timeout_s=0.1) is None
    finally:
        stop.set()
        thread.join()
    assert bench.set.heard_at > before


def test_an_interrupt_ends_the_wait(bench: Bench) -> None:
    bench.start_all()
    bench.set.interrupt()
    with pytest.raises(StageError, match="stopped"):
        bench.set.await_ready()


def test_closing_asks_all_before_it_waits(bench: Bench) -> None:
    bench.start_all()
    bench.set.close()
    assert all(worker.was_stopped and worker.was_joined for worker in bench.workers)


def test_a_cut_way_is_told_at_once_and_mended_by_another(bench: Bench) -> None:
    bench.make_ready()
    assert not bench.set.is_broken()
    bench.places.change("slow")
    lost = PathLost("the way from the coordinator to stage 0 is cut")
    assert bench.losses == [lost]
    assert bench.set.is_broken()
    assert bench.set.next_news() == lost
    bench.set.reroute()
    assert bench.set.next_news(until_ready=True) is None
    assert not bench.set.is_broken()
    for worker in bench.workers:
        assert worker.told[-1].serial == 2
        way = worker.told[-1].next_stage or worker.told[-1].results
        assert way is not None
        assert way.endpoint.startswith("inproc://slow")


def test_a_lost_step_is_a_loss_though_the_way_is_open(bench: Bench) -> None:
    bench.make_ready()
    bench.set.lose_step(7)
    assert bench.losses == [PathLost("step 7 was lost between two stages")]
    assert bench.set.is_broken()
    assert bench.set.next_news() == bench.losses[0]
    bench.set.reroute()
    assert not bench.set.is_broken()


def test_where_no_way_is_open_one_is_waited_for(bench: Bench) -> None:
    bench.make_ready()
    bench.places.change()
    assert isinstance(bench.set.next_news(), PathLost)
    bench.set.reroute()
    assert {len(worker.told) for worker in bench.workers} == {1}
    bench.places.change("slow")
    assert bench.set.next_news(until_ready=True) is None
    assert {len(worker.told) for worker in bench.workers} == {2}


def test_a_better_way_is_news_and_taken_when_asked(bench: Bench) -> None:
    bench.places.ways = ["slow"]
    bench.make_ready()
    assert not bench.set.is_better_way()
    bench.places.change("fast", "slow")
    assert bench.losses == []
    assert bench.set.is_better_way()
    assert isinstance(bench.set.next_news(), PathImproved)
    assert bench.set.next_news(timeout_s=0.01) is None
    bench.set.reroute()
    assert bench.set.next_news(until_ready=True) is None
    assert not bench.set.is_better_way()


def test_a_way_that_opens_without_need_is_no_news(bench: Bench) -> None:
    bench.make_ready()
    bench.places.change("fast", "slow", "slower")
    bench.workers[1].die("left")
    assert bench.set.next_news() == StageExited(1, "left", "node1")


def test_a_stage_that_cannot_load_again_is_news(bench: Bench) -> None:
    bench.make_ready()
    bench.set.start(1, epoch=2)
    bench.workers[3].say(Failed("CorruptModelError", "weights are cut short"))
    news = bench.set.next_news()
    assert isinstance(news, StageBroken)
    assert isinstance(news.error, CorruptModelError)
    assert news.node == "node1"


def test_what_was_lost_before_all_were_connected_anew_is_no_news(bench: Bench) -> None:
    bench.make_ready()
    bench.set.lose_step(7)
    bench.set.lose_step(8)
    assert isinstance(bench.set.next_news(), PathLost)
    bench.set.reroute()
    assert bench.set.next_news(until_ready=True) is None
    assert bench.set.next_news(timeout_s=0) is None


def test_stages_that_another_plan_keeps_are_left_loaded() -> None:
    inbox: Inbox = queue.SimpleQueue()
    work = StageWork(MODELS, RANGES, shards=["a", "b", "c"])
    bench, other = Bench(work, inbox), Bench(work, inbox)
    try:
        bench.make_ready()
        bench.set.start(1, epoch=2)
        bench.set.leave({("node0", "a"), ("node1", "b"), ("node1", "c")})
        # The second one holds nothing yet, and the third one's shard is wanted elsewhere.
        ways = [(worker.was_freed, worker.was_stopped) for worker in bench.workers]
        assert ways == [(True, False), (False, False), (False, True), (False, True)]
        assert bench.set.dead_stages() == [0, 1, 2]
        # What is still said of them is nobody's news.
        bench.workers[2].die("was told to end")
        other.make_ready()
        assert other.set.next_news(timeout_s=0) is None
    finally:
        bench.close()
        other.close()


def test_what_others_say_comes_in_between(bench: Bench) -> None:
    inbox: Inbox = queue.SimpleQueue()
    bench = Bench(inbox=inbox)
    try:
        bench.start_all()
        inbox.put(NodesChanged())
        assert bench.set.next_news(until_ready=True) == NodesChanged()
    finally:
        bench.close()


def test_no_way_is_told_with_the_node_behind_it(bench: Bench) -> None:
    bench.make_ready()
    assert bench.set.unreachable is None
    bench.places.change()
    assert isinstance(bench.set.next_news(), PathLost)
    bench.set.reroute()
    assert bench.set.unreachable == "node0"
    bench.places.change("slow")
    assert bench.set.next_news(until_ready=True) is None
    assert bench.set.unreachable is None


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
