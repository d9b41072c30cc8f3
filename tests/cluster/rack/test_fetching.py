"""How weights come to nodes, with agents that say what the test tells them to."""

import itertools
import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tbcluster.checkpoint import ListedFile, Listing, Span, num_bytes
from tbcluster.cluster.rack import attendance, errands
from tbcluster.cluster.rack.errands import MAX_RESTARTS
from tbcluster.cluster.rack.fetching import FetchProgress, FetchStatus, RackFetch
from tbcluster.errors import ClusterClosedError, DiskFullError, FetchError, RackError
from tbcluster.weights.library import ModelSource
from tbcluster.wire.control import Failed, Report
from tbcluster.wire.errands import (
    Checking,
    Fetched,
    Fetching,
    FetchPart,
    FetchSpec,
    Neighbour,
    Surveyed,
    SurveySpec,
)
from tbcluster.wire.rack import (
    FromAgent,
    FromCoordinator,
    Measure,
    Measured,
    StartWorker,
    StopWorker,
    Welcome,
    WorkerEnded,
    WorkerSaid,
    WorkerStarted,
)
from tests.doubles.control_planes import RackOfScripts
from tests.doubles.nodes import hello, interface, measurement
from tests.doubles.scripted_agent import ScriptedAgent

WEIGHTS, CONFIG = "model.safetensors", "config.json"
TENSOR_BYTES = 1000
Answer = Callable[[SurveySpec | FetchSpec], list[Report | str]]


@pytest.fixture
def source(tmp_path: Path) -> ModelSource:
    """A model of one file with three tensors, and a config."""
    folder = tmp_path / "model"
    folder.mkdir()
    entries = {
        name: {
            "dtype": "U8",
            "shape": [TENSOR_BYTES],
            "data_offsets": [start, start + TENSOR_BYTES],
        }
        for name, start in zip("abc", range(0, 3 * TENSOR_BYTES, TENSOR_BYTES), strict=True)
    }
    header = json.dumps(entries).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(3 * TENSOR_BYTES)
    (folder / WEIGHTS).write_bytes(content)
    (folder / CONFIG).write_bytes(b"{}")
    files = (ListedFile(CONFIG, 2), ListedFile(WEIGHTS, len(content)))
    return ModelSource(Listing("org/tiny", "abc", "org/tiny", files), folder, is_whole=True)


def tensor(source: ModelSource, number: int) -> Span:
    size = source.listing.files[1].size
    return Span(WEIGHTS, size - (3 - number) * TENSOR_BYTES, TENSOR_BYTES)


def always(source: ModelSource) -> tuple[Span, ...]:
    size = source.listing.files[1].size
    return Span(CONFIG, 0, 2), Span(WEIGHTS, 0, size - 3 * TENSOR_BYTES)


class FetchingAgent:
    """An agent whose processes say what `answer` gives for their spec; a text ends them."""

    def __init__(
        self, rack: RackOfScripts, name: str, number: int, answer: Answer, **said: Any
    ) -> None:
        self.specs: list[SurveySpec | FetchSpec] = []
        self.stopped: list[str] = []
        self.answer = answer
        self._name_of = rack.plane.name_of
        self._serials = itertools.count(1)
        self.hello = hello(
            f"{name}'s first",
            interfaces=[interface("en0", f"192.0.2.{number}")],
            **{
                "weights_port": 4000 + number,
                "certificate": f"certificate of {name}",
                **said,
            },
        )
        if name not in rack.trusted.names():
            rack.admit(name)
        self.agent: ScriptedAgent = rack.connect(name)
        self.agent.answer = self._hear
        self.agent.say(self.hello)
        self.agent.hear(Welcome)

    @property
    def fetches(self) -> list[FetchSpec]:
        """All that it was asked to fetch."""
        return [spec for spec in self.specs if isinstance(spec, FetchSpec)]

    def restart(self) -> None:
        """It is another incarnation, whose processes are gone."""
        self.agent.runs = ()
        self._serials = itertools.count(1)
        self.agent.say(msgspec.structs.replace(self.hello, incarnation="another"))

    def _hear(self, message: FromCoordinator) -> FromAgent | None:
        match message:
            case Measure(peer_id=peer_id):
                path = measurement(f"to {self._name_of(peer_id)}", time.time())
                return Measured(peer_id, (path,))
            case StartWorker(worker_id=worker_id, spec=SurveySpec() | FetchSpec() as spec):
                self.specs.append(spec)
                self.agent.runs = (*self.agent.runs, worker_id)
                self._say(WorkerStarted(worker_id, 1))
                for said in self.answer(spec):
                    if isinstance(said, str):
                        self._end(worker_id, said)
                    else:
                        self._say(WorkerSaid(worker_id, said))
            case StopWorker(worker_id=worker_id):
                self.stopped.append(worker_id)
                self._end(worker_id, "was ended")
        return None

    def _end(self, worker_id: str, what: str) -> None:
        self.agent.runs = tuple(one for one in self.agent.runs if one != worker_id)
        self._say(WorkerEnded(worker_id, what))

    def _say(self, message: WorkerSaid | WorkerStarted | WorkerEnded) -> None:
        self.agent.say(msgspec.structs.replace(message, serial=next(self._serials)))


def holds(*spans: Span, then: Answer, reaches_hub: Callable[[], bool] = lambda: False) -> Answer:
    """Answers the survey with these spans, and a fetch as `then` does."""

    def answer(spec: SurveySpec | FetchSpec) -> list[Report | str]:
        if isinstance(spec, SurveySpec):
            surveyed = Surveyed(spans, spec.tries_hub and reaches_hub())
            return [surveyed, "ended with status 0"]
        return then(spec)

    return answer


def fetches(folder: str = "/views/1") -> Answer:
    """Fetches at once."""
    return lambda _: [Fetching(5, 9), Fetched(folder, 1, 2, 3), "ended with status 0"]


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[RackOfScripts]:
    with RackOfScripts(tmp_path / "rack") as made:
        yield made


def await_links(rack: RackOfScripts, num_nodes: int) -> None:
    assert rack.plane.wait_for(lambda _: len(rack.plane.online()) == num_nodes, 20.0)


# What is asked of whom


def test_what_two_need_leaves_the_hub_once(rack: RackOfScripts, source: ModelSource) -> None:
    one = FetchingAgent(rack, "one", 1, holds(then=fetches("/views/one")))
    two = FetchingAgent(rack, "two", 2, holds(then=fetches("/views/two")))
    await_links(rack, 2)
    a, b, c = (tensor(source, number) for number in range(3))
    needs = {rack.id("one"): [a, b], rack.id("two"): [b, c]}
    seen: list[tuple[FetchStatus, ...]] = []
    folders = RackFetch(rack.plane, source, needs, hub="http://hub").run(seen.append)
    assert folders == {rack.id("one"): "/views/one", rack.id("two"): "/views/two"}
    ((first,), (second,)) = one.fetches, two.fetches
    assert first.hub == second.hub == "http://hub"
    from_hub = [part for spec in (first, second) for part in spec.parts if not part.source]
    whole = sum(file.size for file in source.listing.files)
    assert sum(num_bytes(part.spans) for part in from_hub) == whole
    for spec, other, mine in ((first, "two", [a, b]), (second, "one", [b, c])):
        wanted = num_bytes([*mine, *always(source)])
        assert sum(num_bytes(part.spans) for part in spec.parts) == wanted
        assert {part.source for part in spec.parts} == {"", rack.id(other)}
        (neighbour,) = spec.neighbours
        number = {"one": 1, "two": 2}[other]
        assert neighbour == Neighbour(
            rack.id(other), other, (f"to {other}",), 4000 + number, f"certificate of {other}"
        )
    assert [status.is_done for status in seen[-1]] == [True, True]
    assert [status.node for status in seen[-1]] == ["one", "two"]
    assert [status.total_bytes for status in seen[-1]] == [
        num_bytes([a, b, *always(source)]),
        num_bytes([b, c, *always(source)]),
    ]


def test_what_another_node_holds_is_copied_from_it(
    rack: RackOfScripts, source: ModelSource
) -> None:
    """Whether it needs it or not; what is there already stays."""
    a, b, _ = (tensor(source, number) for number in range(3))
    one = FetchingAgent(rack, "one", 1, holds(a, *always(source), then=fetches()))
    two = FetchingAgent(rack, "two", 2, holds(b, then=fetches()))
    await_links(rack, 2)
    RackFetch(rack.plane, source, {rack.id("one"): [a, b]}).run()
    (spec,) = one.fetches
    assert {part.source: num_bytes(part.spans) for part in spec.parts} == {
        rack.id("one"): num_bytes([a, *always(source)]),
        rack.id("two"): b.length,
    }
    assert not two.fetches


def test_a_node_without_a_server_is_no_neighbour(rack: RackOfScripts, source: ModelSource) -> None:
    one = FetchingAgent(rack, "one", 1, holds(then=fetches()))
    FetchingAgent(rack, "two", 2, holds(then=fetches()), weights_port=0)
    RackFetch(rack.plane, source, {rack.id("one"): []}).run()
    (spec,) = one.fetches
    assert spec.neighbours == ()
    assert spec.parts == (FetchPart(always(source)),)


def sources(spec: FetchSpec) -> dict[str, int]:
    """Bytes that come from each."""
    return {part.source: num_bytes(part.spans) for part in spec.parts}


def test_one_that_reaches_the_hub_fetches_for_one_that_does_not(
    rack: RackOfScripts, source: ModelSource
) -> None:
    """Though it needs nothing itself."""
    one = FetchingAgent(rack, "one", 1, holds(then=fetches(), reaches_hub=lambda: True))
    two = FetchingAgent(rack, "two", 2, holds(then=fetches("/views/two")))
    await_links(rack, 2)
    a = tensor(source, 0)
    fetch = RackFetch(rack.plane, source, {rack.id("two"): [a]}, hub="http://hub")
    assert fetch.run() == {rack.id("two"): "/views/two"}
    all_bytes = num_bytes([a, *always(source)])
    assert sources(one.fetches[0]) == {"": all_bytes}
    assert sources(two.fetches[0]) == {rack.id("one"): all_bytes}
    asked = [spec for spec in one.specs if isinstance(spec, SurveySpec) and spec.tries_hub]
    assert [spec.hub for spec in asked] == ["http://hub"]
    assert {status.node: status.total_bytes for status in fetch.statuses} == {
        "one": all_bytes,
        "two": all_bytes,
    }


def test_the_hub_is_not_tried_for_what_is_there(rack: RackOfScripts, source: ModelSource) -> None:
    one = FetchingAgent(rack, "one", 1, holds(*always(source), then=fetches()))
    two = FetchingAgent(rack, "two", 2, holds(then=fetches()))
    await_links(rack, 2)
    RackFetch(rack.plane, source, {rack.id("two"): []}).run()
    specs = [*one.specs, *two.specs]
    assert not any(isinstance(spec, SurveySpec) and spec.tries_hub for spec in specs)


def test_what_is_being_hashed_is_shown(rack: RackOfScripts, source: ModelSource) -> None:
    def answer(spec: SurveySpec | FetchSpec) -> list[Report | str]:
        if isinstance(spec, SurveySpec):
            return [Checking(3, 70), Surveyed(()), "ended with status 0"]
        return [Checking(30, 90), *fetches()(spec)]

    FetchingAgent(rack, "one", 1, answer)
    seen: list[FetchStatus] = []
    fetch = RackFetch(rack.plane, source, {rack.id("one"): []})
    fetch.run(lambda statuses: seen.append(statuses[0]))
    checks = [(one.done_bytes, one.total_bytes) for one in seen if one.is_checking]
    assert checks == [(3, 70), (30, 90)]
    assert seen[-1].is_done
    assert seen[-1].total_bytes == num_bytes(always(source))


# What goes wrong


def test_the_share_of_one_that_loses_the_hub_is_fetched_by_another(
    rack: RackOfScripts, source: ModelSource
) -> None:
    is_cut = False

    def loses_it(spec: SurveySpec | FetchSpec) -> list[Report | str]:
        nonlocal is_cut
        if not is_cut:
            is_cut = True
            return [Failed("FetchError", "the hub is gone"), "ended with status 1"]
        return fetches("/views/two")(spec)

    one = FetchingAgent(rack, "one", 1, holds(then=fetches(), reaches_hub=lambda: True))
    two = FetchingAgent(rack, "two", 2, holds(then=loses_it, reaches_hub=lambda: not is_cut))
    await_links(rack, 2)
    fetch = RackFetch(rack.plane, source, {rack.id("two"): []})
    assert fetch.run() == {rack.id("two"): "/views/two"}
    first, second = two.fetches
    assert sources(first) == {"": num_bytes(always(source))}
    assert sources(second) == {rack.id("one"): num_bytes(always(source))}
    assert sources(one.fetches[0]) == {"": num_bytes(always(source))}


def test_when_nobody_else_reaches_the_hub_the_failure_is_told(
    rack: RackOfScripts, source: ModelSource
) -> None:
    failure = Failed("FetchError", "the hub is gone")
    for number, name in enumerate(("one", "two"), 1):
        answer = holds(then=lambda _: [failure, "ended with status 1"], reaches_hub=lambda: True)
        FetchingAgent(rack, name, number, answer)
    await_links(rack, 2)
    with pytest.raises(FetchError, match="one: the hub is gone"):
        RackFetch(rack.plane, source, {rack.id("one"): []}).run()


def test_a_process_that_dies_is_started_again(rack: RackOfScripts, source: ModelSource) -> None:
    attempts = itertools.count()

    def dies_twice(spec: SurveySpec | FetchSpec) -> list[Report | str]:
        if next(attempts) < 2:
            return [Fetching(10, 90, 0, 10, 5), "was killed by signal 9"]
        return [Fetching(20, 90, 10, 3, 1), Fetched("/views/1", 10, 4, 2), "ended with status 0"]

    one = FetchingAgent(rack, "one", 1, holds(then=dies_twice))
    fetch = RackFetch(rack.plane, source, {rack.id("one"): []})
    assert fetch.run() == {rack.id("one"): "/views/1"}
    assert len(one.fetches) == 3
    (status,) = fetch.statuses
    # Two times the first counts, and what the last one said.
    assert (status.hub_bytes, status.neighbour_bytes) == (24, 12)
    assert status.held_bytes == 0


def test_one_that_always_dies_is_told(rack: RackOfScripts, source: ModelSource) -> None:
    one = FetchingAgent(rack, "one", 1, holds(then=lambda _: ["was killed by signal 9"]))
    with pytest.raises(
        FetchError, match=r"one: the process was killed by signal 9; .* in 6 attempts"
    ):
        RackFetch(rack.plane, source, {rack.id("one"): []}).run()
    assert len(one.fetches) == MAX_RESTARTS + 1


@pytest.mark.parametrize("kind", [FetchError, DiskFullError, OSError])
def test_a_failure_names_the_node_and_ends_the_others(
    rack: RackOfScripts, source: ModelSource, kind: type[Exception]
) -> None:
    failure = Failed(kind.__name__, "there is a reason")
    FetchingAgent(rack, "one", 1, holds(then=lambda _: [failure, "ended with status 1"]))
    two = FetchingAgent(rack, "two", 2, holds(then=lambda _: [Fetching(1, 9)]))
    await_links(rack, 2)
    expected = DiskFullError if kind is DiskFullError else FetchError
    with pytest.raises(expected, match="one: there is a reason") as caught:
        RackFetch(rack.plane, source, {rack.id("one"): [], rack.id("two"): []}).run()
    assert type(caught.value) is expected
    assert len(two.stopped) == len(two.fetches)


def test_a_node_that_is_lost_goes_on_when_it_is_back(
    rack: RackOfScripts, source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often."""
    monkeypatch.setattr(errands, "MAX_RESTARTS", 0)
    one = FetchingAgent(rack, "one", 1, holds(then=lambda _: [Fetching(1, 9)]))

    def restart_once(statuses: tuple[FetchStatus, ...]) -> None:
        if statuses[0].done_bytes == 1:
            one.answer = holds(then=fetches("/views/again"))
            one.restart()

    fetch = RackFetch(rack.plane, source, {rack.id("one"): []})
    assert fetch.run(restart_once) == {rack.id("one"): "/views/again"}
    assert len(one.fetches) == 2


def test_a_node_that_comes_later_is_waited_for(rack: RackOfScripts, source: ModelSource) -> None:
    rack.admit("one")
    late: list[FetchingAgent] = []

    def gives_up() -> bool:
        if not late:
            late.append(FetchingAgent(rack, "one", 1, holds(then=fetches())))
        return False

    fetch = RackFetch(rack.plane, source, {rack.id("one"): []})
    assert fetch.run(gives_up=gives_up) == {rack.id("one"): "/views/1"}


def test_a_node_that_is_not_needed_is_not_waited_for(
    rack: RackOfScripts, source: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendance, "LEASE_S", 1.0)
    FetchingAgent(rack, "one", 1, holds(then=fetches()))
    silent = FetchingAgent(rack, "two", 2, lambda _: [])
    failing = Failed("FetchError", "no store")
    FetchingAgent(rack, "three", 3, lambda _: [failing, "ended with status 1"])
    await_links(rack, 3)
    silent.agent.is_silent = True
    fetch = RackFetch(rack.plane, source, {rack.id("one"): []})
    assert fetch.run() == {rack.id("one"): "/views/1"}


def test_a_node_that_is_revoked_is_told(rack: RackOfScripts, source: ModelSource) -> None:
    FetchingAgent(rack, "one", 1, holds(then=lambda _: [Fetching(1, 9)]))

    def revoke(statuses: tuple[FetchStatus, ...]) -> None:
        if statuses[0].done_bytes == 1:
            rack.trusted.members.revoke("one")

    with pytest.raises(RackError, match="one was revoked"):
        RackFetch(rack.plane, source, {rack.id("one"): []}).run(revoke)


def test_whoever_gives_up_leaves_nothing_running(rack: RackOfScripts, source: ModelSource) -> None:
    one = FetchingAgent(rack, "one", 1, holds(then=lambda _: [Fetching(1, 9)]))
    with pytest.raises(ClusterClosedError):
        RackFetch(rack.plane, source, {rack.id("one"): []}).run(gives_up=lambda: bool(one.fetches))
    assert len(one.stopped) == 1


def test_a_rack_that_is_closed_ends_it(rack: RackOfScripts, source: ModelSource) -> None:
    one = FetchingAgent(rack, "one", 1, holds(then=lambda _: [Fetching(1, 9)]))

    def close() -> bool:
        if one.fetches:
            rack.plane.close()
        return False

    with pytest.raises(RackError, match="closed"):
        RackFetch(rack.plane, source, {rack.id("one"): []}).run(gives_up=close)


def test_spans_of_another_model_are_refused(rack: RackOfScripts, source: ModelSource) -> None:
    with pytest.raises(FetchError, match="not part of the model"):
        RackFetch(rack.plane, source, {rack.id("head"): [Span("other.safetensors", 0, 1)]})


# How far it is


def test_the_speed_is_that_of_the_last_seconds() -> None:
    progress = FetchProgress("one", 1000)
    assert progress.status == FetchStatus("one", 0, 1000)
    for second in range(11):
        # It gets faster: 10 bytes in the first second, then 50.
        fetched = 10 * second if second < 5 else 50 * second
        progress.note(Fetching(fetched, 1000, 0, fetched, 0), float(second))
    assert progress.status.bytes_per_s == 50.0
    progress.end(Fetched("/views", 0, 900, 100))
    assert progress.status == FetchStatus("one", 1000, 1000, 0, 900, 100, 0.0, is_done=True)
