"""Stages that are lost and come back, others, none: what requests are told of it, which is nothing
but their tokens. Over in-memory channels, with a scripted stage at the other end."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.core import (
    CacheCost,
    LogitRules,
    Output,
    Pooling,
    Request,
    Sample,
    SampledToken,
    SamplingParams,
    TokenId,
)
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.engine import Engine, Works
from tbcluster.engine.examination import Examination
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.limits import Limits
from tbcluster.engine.pace import Pace
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.prefix_index import PrefixIndex
from tbcluster.engine.scheduler import UNLIMITED, Scheduler, Shape
from tbcluster.errors import (
    ClusterClosedError,
    QueueFullError,
    StageError,
    StageLostError,
    StarvedError,
    TbclusterError,
)
from tbcluster.wire.operations import NewCache
from tests.doubles.engines import VOCAB_SIZE
from tests.doubles.stage_double import StageDouble, continuation, embedding_of, some_letter
from tests.doubles.text_double import CharacterDetokenizer

MAX_TURNS = 3000
CHUNK_TOKENS = 4
NUM_TOKENS = 8
MUCH = 1 << 40
SYSTEM = tuple(map(ord, "You answer briefly, kindly, and in the language of the question. " * 2))
PROMPTS = [tuple(map(ord, text)) for text in ("a", "to", "hello world, how are you", "xyzzy")]


class SeededStage(StageDouble):
    """Its sampled tokens depend on seed and position, too."""

    def _pick(self, row: Sequence[TokenId], sample: Sample) -> TokenId:
        if sample.params.temperature == 0:
            return super()._pick(row, sample)
        return some_letter((*row, sample.params.seed, sample.position))


def undisturbed(request: Request) -> list[TokenId]:
    """The tokens of a request on stages that nothing happens to."""
    if request.sampling.temperature == 0:
        return continuation(request.prompt, request.max_tokens)
    tokens = list(request.prompt)
    for _ in range(request.max_tokens):
        tokens.append(some_letter((*tokens, request.sampling.seed, len(tokens))))
    return tokens[len(request.prompt) :]


class Bench:
    """An engine, the stages that answer it, on a clock that goes on with every turn, and what each
    request was told.

    Attributes:
        lost: Steps that were missed, at which the engine was paused.
    """

    def __init__(self, *, is_open: bool = True, **works: Any) -> None:
        self.now = 0.0
        self.epoch = 1
        self.stage = SeededStage()
        self.lost: list[int] = []
        self.works = self.new_works(**works)
        self.engine = Engine(self.works, CharacterDetokenizer, clock=lambda: self.now)
        self.asked: dict[str, tuple[Request, list[Output | TbclusterError]]] = {}
        if is_open:
            self.engine.open()

    def new_works(
        self,
        num_stages: int = 2,
        kv_tokens: int | None = None,
        max_running: int = 64,
        max_rows: int = 256,
        max_per_sequence: int = UNLIMITED,
        max_trimmable_tokens: int | None = None,
    ) -> Works:
        """For the stages that are there now; a cache takes a byte per token on each."""
        budgets = [MUCH if kv_tokens is None else kv_tokens] * num_stages
        memory = KvMemory([[CacheCost(0, 1)]] * num_stages, budgets)
        caches = CacheBook(memory, PrefixIndex(max_trimmable_tokens))
        shape = Shape(num_stages, max_rows, max_per_sequence)
        pipeline = Pipeline(
            self.stage.inbound,
            self.stage.results,
            self.epoch,
            clock=lambda: self.now,
            on_gap=self._lose,
        )
        capacity = None if kv_tokens is None else memory.capacity_tokens()
        return Works(
            pipeline,
            Scheduler(shape, caches, Pace(num_stages, CHUNK_TOKENS)),
            caches,
            Limits(VOCAB_SIZE, None, max_running, 64, capacity, "as small as this"),
        )

    def submit(
        self, prompt: tuple[TokenId, ...], *, while_held: bool = False, **fields: Any
    ) -> list[Output | TbclusterError]:
        request = Request(f"{len(self.asked)}", prompt, **{"max_tokens": NUM_TOKENS, **fields})
        told: list[Output | TbclusterError] = []
        self.engine.submit(request, told.append, while_held=while_held)
        self.asked[request.request_id] = request, told
        return told

    def begin_epoch(self, **works: Any) -> None:
        """Mend the stages, or with `works` begin with others."""
        self.epoch += 1
        if works:
            self.stage = SeededStage()
            self.works = self.new_works(**works)
        self.engine.begin_epoch(self.epoch, self.works if works else None)

    def turns(self, number: int = 1, most_steps: int | None = None) -> None:
        for _ in range(number):
            self.now += 0.1
            self.engine.step(0)
            self.stage.work(most_steps)

    def finish(self) -> None:
        """Run until nothing is open, and some turns more for what should not come. Whoever misses a
        step mends the stages."""
        for _ in range(MAX_TURNS):
            if self.engine.num_open == 0:
                break
            if self.lost:
                self.lost.clear()
                self.begin_epoch()
                self.engine.open()
            self.turns()
        assert self.engine.num_open == 0
        self.turns(20)

    def caches_left(self) -> set[int]:
        """Those that are no known prefixes."""
        known = {entry.cache_id for entry in self.works.caches.prefixes}
        return set(self.stage.contexts) - known

    def _lose(self, step_id: int) -> None:
        self.lost.append(step_id)
        self.engine.pause()


def assert_whole(request: Request, told: list[Output | TbclusterError]) -> None:
    """Each token was told once, in order, and they are what they would have been."""
    assert_right_so_far(request, told)
    last = told[-1]
    assert isinstance(last, Output)
    assert last.finish_reason is not None
    assert request.pooling is not None or len(told) == request.max_tokens


def assert_right_so_far(request: Request, told: list[Output | TbclusterError]) -> None:
    outputs = [item for item in told if isinstance(item, Output)]
    assert len(outputs) == len(told), told
    if request.pooling is not None:
        expected = embedding_of(request.prompt, request.pooling)
        if request.pooling is Pooling.MEAN:
            expected = expected / len(request.prompt)
        assert [output.embedding for output in outputs] in ([], [tuple(expected.tolist())])
        return
    tokens = [output.sampled.token for output in outputs]
    assert tokens == undisturbed(request)[: len(tokens)]
    assert "".join(output.text for output in outputs) == "".join(map(chr, tokens))
    assert [o.num_generated_tokens for o in outputs] == list(range(1, len(outputs) + 1))
    assert all(output.finish_reason is None for output in outputs[:-1])


def assert_all_whole(bench: Bench) -> None:
    for request, told in bench.asked.values():
        assert_whole(request, told)
    assert not bench.stage.has_failed
    assert bench.caches_left() == set()
    assert not bench.stage.rules


# Pause and go on


@pytest.mark.parametrize("num_turns", range(1, 14))
def test_running_requests_wait_and_go_on_in_the_new_epoch(num_turns: int) -> None:
    bench = Bench(max_running=2)
    told = [bench.submit(prompt, max_tokens=20) for prompt in PROMPTS]
    bench.turns(num_turns)
    bench.engine.pause()
    bench.turns(1)
    so_far = [len(items) for items in told]
    num_steps = len(bench.stage.steps)
    bench.turns(10)
    # What is on its way when they pause is not told, and nothing is sent.
    assert [len(items) for items in told] == so_far
    assert len(bench.stage.steps) == num_steps
    assert bench.engine.num_open == len(PROMPTS)
    statistics = bench.engine.statistics
    assert (statistics.num_running, statistics.num_waiting) == (0, len(PROMPTS))
    assert statistics.kv_used_bytes == (0, 0)
    bench.begin_epoch()
    bench.turns(3)
    assert len(bench.stage.steps) == num_steps
    bench.engine.open()
    bench.finish()
    assert_all_whole(bench)
    assert {step.epoch for step in bench.stage.steps[num_steps:]} == {2}


def test_what_came_back_before_the_pause_is_told_once() -> None:
    bench = Bench()
    told = bench.submit(PROMPTS[1])
    bench.turns(3)
    before = len(told)
    # The newest token has been taken, and is turned into text while the next is computed.
    bench.engine.pause()
    bench.turns(1)
    assert len(told) == before + 1
    bench.begin_epoch()
    bench.engine.open()
    bench.finish()
    assert_all_whole(bench)


def test_they_go_on_in_the_order_they_came() -> None:
    bench = Bench(max_running=2)
    told = [bench.submit(prompt, max_tokens=6) for prompt in PROMPTS]
    bench.turns(6)
    bench.begin_epoch()
    bench.engine.open()
    while not told[3]:
        bench.turns(1)
        assert bool(told[0]) >= bool(told[1]) >= bool(told[2])
    bench.finish()
    assert_all_whole(bench)


def test_results_from_before_the_loss_are_dropped() -> None:
    bench = Bench()
    bench.submit(PROMPTS[2], max_tokens=9)
    bench.engine.step(0)
    assert bench.stage.work() == 3
    bench.begin_epoch()
    bench.engine.open()
    bench.finish()
    assert_all_whole(bench)
    assert bench.works.pipeline.num_dropped_messages == 3


def test_an_open_that_comes_after_the_loss_does_no_harm() -> None:
    bench = Bench()
    bench.submit(PROMPTS[2])
    bench.turns(4)
    bench.engine.pause()
    bench.engine.open()
    bench.turns(3)
    bench.begin_epoch()
    bench.engine.open()
    bench.finish()
    assert_all_whole(bench)


def test_a_loss_counts_for_no_failure_of_the_request() -> None:
    bench = Bench()
    told = bench.submit(PROMPTS[2])
    for _ in range(5):
        bench.turns(3)
        bench.begin_epoch()
        bench.engine.open()
    failures = [True]
    bench.stage.fails = lambda _: bool(failures) and failures.pop()
    bench.finish()
    assert not failures
    assert_whole(*bench.asked["0"])
    assert len(told) == NUM_TOKENS


@pytest.mark.parametrize("max_trimmable_tokens", [None, 0])
def test_one_prompt_is_computed_once_for_all_who_share_it(
    max_trimmable_tokens: int | None,
) -> None:
    bench = Bench(max_trimmable_tokens=max_trimmable_tokens)
    ended = bench.submit(SYSTEM, max_tokens=2)
    bench.finish()
    assert len(ended) == 2
    for number in range(4):
        sampling = SamplingParams(temperature=1.0, seed=number)
        bench.submit((*SYSTEM, 7), max_tokens=30, sampling=sampling)
    # All of them began with the prefix that the first has left; none has computed it.
    bench.turns(12)
    bench.begin_epoch()
    bench.engine.open()
    num_steps = len(bench.stage.steps)
    bench.finish()
    batches = [step.micro_batch for step in bench.stage.steps[num_steps:]]
    num_prefilled = sum(len(batch.tokens) for batch in batches if batch and not batch.samples)
    assert len(SYSTEM) <= num_prefilled < 2 * len(SYSTEM)
    assert_all_whole(bench)


@pytest.mark.parametrize("after", ["pause", "begin_epoch", "close", "starve"])
def test_a_probe_ends_with_the_epoch_it_came_in(after: str) -> None:
    bench = Bench(is_open=False)
    ordinary = bench.submit(PROMPTS[1])
    probe = bench.submit(PROMPTS[2], while_held=True)
    bench.turns(2)
    error: TbclusterError = StageLostError("a stage was lost meanwhile: try again")
    match after:
        case "pause":
            bench.engine.pause()
        case "begin_epoch":
            bench.begin_epoch()
        case "close":
            bench.engine.close(error := ClusterClosedError("over"))
        case "starve":
            bench.engine.starve(error := StarvedError("too few"))
    bench.turns(1)
    ended = [item for item in probe if isinstance(item, TbclusterError)]
    assert [(type(item), str(item)) for item in ended] == [(type(error), str(error))]
    if after in ("pause", "begin_epoch"):
        assert ordinary == []
        assert bench.engine.num_open == 1
    else:
        assert bench.engine.num_open == 0


# Other stages


@pytest.mark.parametrize("num_stages", [1, 2, 5])
def test_sequences_go_on_with_other_stages(num_stages: int) -> None:
    bench = Bench()
    for prompt in PROMPTS:
        bench.submit(prompt, max_tokens=20)
    bench.turns(8)
    before, old_stage = bench.engine.statistics, bench.stage
    begun: list[None] = []
    bench.epoch += 1
    bench.stage = SeededStage()
    bench.works = bench.new_works(num_stages)
    bench.engine.begin_epoch(bench.epoch, bench.works, lambda: begun.append(None))
    assert begun == []
    bench.turns(1)
    assert begun == [None]
    old_stage.inbound.receive(0)
    bench.engine.open()
    bench.finish()
    assert_all_whole(bench)
    assert old_stage.inbound.receive(0) is None, "nothing is sent to the old ones any more"
    now = bench.engine.statistics
    assert len(now.stages) == len(now.kv_used_bytes) == num_stages
    assert now.stages[0].compute_us > before.stages[0].compute_us
    assert now.num_steps > before.num_steps
    assert now.num_prompt_tokens == before.num_prompt_tokens


def test_what_the_new_stages_cannot_hold_ends_and_says_why() -> None:
    bench = Bench()
    long, short = bench.submit((7,) * 2000, max_tokens=50), bench.submit(PROMPTS[1])
    growing = bench.submit((8,) * 1000, max_tokens=600)
    bench.turns(4)
    bench.begin_epoch(kv_tokens=2048)
    bench.engine.open()
    capacity = bench.works.limits.kv_tokens
    assert capacity == 1538
    bench.finish()
    assert_whole(*bench.asked["1"])
    assert len(short) == NUM_TOKENS
    for told, request in ((long, bench.asked["0"][0]), (growing, bench.asked["2"][0])):
        assert isinstance(told[-1], StarvedError)
        assert "1538 for one request (as small as this)" in str(told[-1])
        assert_right_so_far(request, told[:-1])
    # It got all the tokens that there is room for.
    assert len(growing) - 1 == capacity - 1000
    assert bench.caches_left() == set()


def test_a_longer_request_fits_again_with_more_stages() -> None:
    bench = Bench(kv_tokens=1024)
    bench.begin_epoch(num_stages=3, kv_tokens=1 << 20)
    bench.engine.open()
    bench.turns(1)
    bench.submit((9,) * 3000)
    bench.finish()
    assert_all_whole(bench)


# None


def test_starving_ends_requests_and_refuses_others_until_it_is_open() -> None:
    bench = Bench(max_running=1)
    running, waiting = bench.submit(PROMPTS[2], max_tokens=20), bench.submit(PROMPTS[1])
    bench.turns(6)
    error = StarvedError("8 GiB are missing")
    bench.engine.starve(error)
    just_after = bench.submit(PROMPTS[1])
    bench.turns(2)
    assert running[-1] is waiting[-1] is just_after[-1] is error
    assert (len(waiting), len(just_after)) == (1, 1)
    assert bench.engine.num_open == 0
    with pytest.raises(StarvedError, match="8 GiB"):
        bench.submit(PROMPTS[1])
    bench.begin_epoch(num_stages=3)
    probe = bench.submit(PROMPTS[3], while_held=True)
    bench.turns(20)
    assert len(probe) == NUM_TOKENS
    bench.engine.open()
    bench.turns(1)
    served = bench.submit(PROMPTS[0])
    bench.finish()
    assert len(served) == NUM_TOKENS


# To another replica and back


def test_paused_requests_go_on_in_another_engine() -> None:
    first, second = Bench(max_running=2), Bench()
    told = [first.submit(prompt, max_tokens=20) for prompt in PROMPTS]
    own = second.submit(PROMPTS[1], max_tokens=20)
    for bench in (first, second):
        bench.turns(8)
    probe = first.submit(PROMPTS[1], while_held=True)
    first.turns(1)
    first.engine.surrender(second.engine.adopt)
    first.turns(1)
    assert first.engine.num_open == 3, "those that run stay, and the probe"
    first.engine.pause()
    first.engine.surrender(second.engine.adopt)
    first.turns(1)
    assert (first.engine.num_open, second.engine.num_open) == (0, 5)
    assert isinstance(probe[-1], StageLostError)
    second.turns(2)
    second.engine.cancel("3")
    num_told = len(told[3])
    second.finish()
    assert len(own) == 20
    for number in range(3):
        assert_whole(*first.asked[str(number)])
    assert len(told[3]) == num_told < 20
    assert second.caches_left() == set()
    # Each prompt is counted where it was started.
    counted = [bench.engine.statistics.num_prompt_tokens for bench in (first, second)]
    assert sum(counted) == sum(map(len, PROMPTS)) + len(PROMPTS[1]) * 2


def test_a_request_that_is_cancelled_while_it_moves_is_cancelled() -> None:
    first, second = Bench(is_open=False), Bench()
    told = first.submit(PROMPTS[2])
    # As `Replicas.cancel` does, after the first engine has given it away.
    first.engine.surrender(lambda _: None)
    moving = []
    first.engine.pause()
    first.submit(PROMPTS[1])
    first.engine.surrender(moving.extend)
    first.turns(1)
    for bench in (first, second):
        bench.engine.cancel("1")
    second.turns(1)
    second.engine.adopt(moving)
    second.finish()
    assert told == first.asked["1"][1] == []
    assert second.stage.steps == []
    # The name may be used again.
    again: list[Output | TbclusterError] = []
    second.engine.submit(Request("1", PROMPTS[1], NUM_TOKENS), again.append)
    second.finish()
    assert len(again) == NUM_TOKENS


def test_a_closed_engine_adopts_nobody() -> None:
    first, second = Bench(is_open=False), Bench()
    told = first.submit(PROMPTS[2])
    error = ClusterClosedError("over")
    second.engine.close(error)
    second.turns(1)
    first.engine.surrender(second.engine.adopt)
    first.turns(1)
    assert told == [error]
    assert (first.engine.num_open, second.engine.num_open) == (0, 0)


def test_adopted_requests_count_for_the_queue() -> None:
    first, second = Bench(is_open=False, max_running=64), Bench(is_open=False, max_running=0)
    for _ in range(64):
        first.submit(PROMPTS[1])
    first.engine.surrender(second.engine.adopt)
    first.turns(1)
    with pytest.raises(QueueFullError, match="64 requests"):
        second.submit(PROMPTS[1])


# Examinations


def examined(bench: Bench, tokens: tuple[TokenId, ...] = PROMPTS[2]) -> list[Any]:
    results: list[Any] = []
    bench.engine.examine(tokens, results.append)
    return results


def test_an_examination_is_one_step_beside_others_on_a_cache_of_its_own() -> None:
    bench = Bench(is_open=False)
    alone = examined(bench)
    bench.turns(3)
    (step,) = bench.stage.steps
    assert step.micro_batch is not None
    assert step.micro_batch.tokens == PROMPTS[2]
    assert step.micro_batch.is_examined
    assert sum(isinstance(op, NewCache) for op in step.operations) == 1
    bench.engine.open()
    for prompt in PROMPTS:
        bench.submit(prompt, max_tokens=20)
    bench.turns(5)
    beside = examined(bench)
    bench.finish()
    assert_all_whole(bench)
    assert alone == beside
    (examination,) = alone
    assert isinstance(examination, Examination)
    assert len(examination.digests) == 1
    assert examination.sampled == SampledToken(some_letter(PROMPTS[2]))
    assert bench.works.caches.memory.used == (0, 0) or bench.works.caches.prefixes


@pytest.mark.parametrize("after", ["pause", "begin_epoch", "close"])
@pytest.mark.parametrize("is_sent", [False, True])
def test_an_examination_ends_with_its_epoch(after: str, is_sent: bool) -> None:
    bench = Bench()
    results = examined(bench)
    if is_sent:
        bench.engine.step(0)
    match after:
        case "pause":
            bench.engine.pause()
        case "begin_epoch":
            bench.begin_epoch()
        case "close":
            bench.engine.close(ClusterClosedError("over"))
    bench.turns(3)
    expected = ClusterClosedError if after == "close" else StageLostError
    assert [type(result) for result in results] == [expected]
    late = examined(bench)
    bench.turns(8)
    assert [type(result) for result in late] == [
        ClusterClosedError if after == "close" else Examination
    ]


def test_an_examination_waits_for_room_and_says_what_went_wrong() -> None:
    bench = Bench(kv_tokens=1024)
    bench.submit(PROMPTS[2], max_tokens=30)
    bench.turns(3)
    waiting, too_long = examined(bench), examined(bench, (1,) * 2000)
    bench.turns(2)
    assert waiting == []
    assert [type(result) for result in too_long] == [StarvedError]
    bench.finish()
    assert [type(result) for result in waiting] == [Examination]
    bench.stage.fails = lambda _: True
    failing = examined(bench)
    bench.turns(3)
    assert [(type(result), str(result)) for result in failing] == [
        (StageError, "stage 0 failed: as it was told")
    ]


# Anything at any moment

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
                bench.begin_epoch()
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
        if bench.stage.steps and bench.stage.steps[-1].epoch == bench.epoch:
            assert not bench.stage.rules
            assert bench.caches_left() == set()
    for results in script.examinations:
        (result,) = results
        assert isinstance(result, Examination | StageLostError)
