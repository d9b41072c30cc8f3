"""Requests come and go while anything happens to the stages of two replicas."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.core import (
    LogitRules,
    Output,
    Pooling,
    Request,
    SamplingParams,
    TokenId,
)
from tbcluster.engine.examination import Examination
from tbcluster.engine.scheduler import UNLIMITED
from tbcluster.errors import (
    StageLostError,
    TbclusterError,
)
from tests.doubles.epochs import (
    SYSTEM,
    Bench,
    assert_right_so_far,
    assert_whole,
    examined,
)

requests = st.builds(
    lambda prompt, fields: (prompt, fields),
    st.builds(
        lambda shared, own: SYSTEM[:shared] + tuple(own),
        st.sampled_from([0, 40, 70, len(SYSTEM)]),
        st.lists(st.integers(1, 9), min_size=1, max_size=20),
    ),
    st.one_of(
        st.builds(
            lambda sampling, rules, num: {
                "sampling": sampling,
                "rules": rules,
                "max_tokens": num,
            },
            st.just(SamplingParams())
            | st.builds(lambda seed: SamplingParams(temperature=1.0, seed=seed), st.integers(0, 9)),
            st.sampled_from([None, LogitRules(repetition_penalty=1.2)]),
            st.integers(1, 25),
        ),
        st.sampled_from(Pooling).map(lambda pooling: {"pooling": pooling}),
    ),
)
other_works = st.fixed_dictionaries(
    {
        "num_stages": st.integers(1, 4),
        "kv_tokens": st.sampled_from([1024, 2560, None]),
        "max_running": st.sampled_from([2, 64]),
        "max_rows": st.sampled_from([1, 2, 256]),
        "max_per_sequence": st.sampled_from([1, UNLIMITED]),
        "max_trimmable_tokens": st.sampled_from([None, 0]),
    }
)
move = st.one_of(
    st.tuples(st.just("submit"), requests),
    st.tuples(st.just("submit"), requests),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("lose a step"), st.none()),
    st.tuples(st.just("lose a result"), st.none()),
    st.tuples(st.just("pause"), st.none()),
    st.tuples(st.just("mend"), st.none()),
    st.tuples(st.just("exchange"), other_works),
    st.tuples(st.just("open"), st.none()),
    st.tuples(st.just("examine"), st.none()),
    st.tuples(st.just("move"), st.none()),
)


class Script:
    """Two replicas to which anything may happen."""

    def __init__(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        self.benches = Bench(**first), Bench(**second)
        self.cancelled: set[int] = set()
        self.examinations: list[list[Any]] = []
        self.has_lost = False
        self.num_asked = 0

    def move(self, index: int, name: str, what: Any) -> None:
        bench, other = self.benches[index], self.benches[1 - index]
        match name:
            case "submit":
                self._submit(bench, *what)
            case "cancel":
                for each in self.benches:
                    each.engine.cancel(str(what))
                self.cancelled.add(what)
            case "lose a step":
                self.has_lost |= bench.stage.inbound.receive(0) is not None
            case "lose a result":
                self.has_lost |= bench.stage.results.receive(0) is not None
            case "pause":
                bench.engine.pause()
                bench.lost.append(-1)
            case "mend":
                bench.begin_epoch()
            case "exchange":
                bench.begin_epoch(**what)
            case "open":
                bench.engine.open()
            case "examine":
                self.examinations.append(examined(bench))
            case "move":
                bench.engine.surrender(other.engine.adopt)

    def turns(self, number: int, most_steps: int | None) -> None:
        for bench in self.benches:
            bench.turns(number, most_steps)

    def finish(self) -> None:
        for _ in range(2):  # what is moved may come late
            for bench in self.benches:
                bench.engine.open()
                bench.turns(1)
        for bench in self.benches:
            bench.finish()

    def _submit(self, bench: Bench, prompt: tuple[TokenId, ...], fields: dict[str, Any]) -> None:
        request = Request(str(self.num_asked), prompt, **{"max_tokens": 1, **fields})
        self.num_asked += 1
        told: list[Output | TbclusterError] = []
        bench.engine.submit(request, told.append)
        bench.asked[request.request_id] = request, told


@settings(max_examples=80, deadline=None)
@given(
    other_works,
    other_works,
    st.lists(st.tuples(move, st.integers(0, 1), st.integers(0, 5), st.booleans()), max_size=20),
)
def test_whatever_happens_every_token_is_told_once_and_right(
    first: dict[str, Any], second: dict[str, Any], moves: list[tuple[Any, int, int, bool]]
) -> None:
    script = Script(first, second)
    for (name, what), index, num_turns, is_slow in moves:
        script.move(index, name, what)
        script.turns(num_turns, 1 if is_slow else None)
    script.finish()
    for bench in script.benches:
        for name, (request, told) in bench.asked.items():
            if int(name) in script.cancelled:
                assert_right_so_far(request, told)
            else:
                assert_whole(request, told)
        assert script.has_lost or not bench.stage.has_failed
        # Stages that have seen no step since the last pause have not dropped anything yet.
        if not bench.lost and bench.stage.steps and bench.stage.steps[-1].epoch == bench.epoch:
            assert not bench.stage.rules
            assert bench.caches_left() == set()
    for results in script.examinations:
        (result,) = results
        assert isinstance(result, Examination | StageLostError)
