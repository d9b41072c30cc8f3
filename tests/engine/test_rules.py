"""Logit rules through the whole engine: made when a sequence starts, dropped when it is over, in
step with its tokens whatever happens between. The stage double fails a step otherwise."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.core import LogitRules, Output, Request, TokenId
from tbcluster.engine.pipeline import Pipeline
from tbcluster.errors import RequestError, StageError, TbclusterError
from tbcluster.wire.operations import CacheOperation, DropRules, NewRules
from tests.doubles.engines import Settings, new_caches, new_engine
from tests.doubles.stage_double import StageDouble, continuation

BIAS = LogitRules(logit_bias=((3, 1.0),))
REPETITION = LogitRules(repetition_penalty=1.2)
NEWEST = LogitRules(repetition_penalty=1.2, repetition_context=3)
# Seven of the longest, one after another, take 4,000.
MAX_TURNS = 20_000
NUM_TOKENS = 8


class Bench:
    """An engine, the stage that answers it, and what each request was told."""

    def __init__(self, **fields: Any) -> None:
        self.stage = StageDouble()
        self.caches = new_caches(Settings(**fields))
        pipeline = Pipeline(self.stage.inbound, self.stage.results)
        self.engine = new_engine(pipeline, Settings(**fields), self.caches)
        self.engine.open()
        self.told: dict[str, list[Output | TbclusterError]] = {}

    def submit(self, prompt: str, rules: LogitRules | None, **fields: Any) -> str:
        name = str(len(self.told))
        told = self.told[name] = []
        fields = {"max_tokens": NUM_TOKENS, **fields}
        request = Request(name, tuple(map(ord, prompt)), rules=rules, **fields)
        self.engine.submit(request, told.append)
        return name

    def turn(self, most_steps: int | None = None) -> None:
        self.engine.step(0)
        self.stage.work(most_steps)

    def finish(self) -> None:
        for _ in range(MAX_TURNS):
            if self.engine.num_open == 0:
                break
            self.turn()
        for _ in range(20):
            self.turn()
        assert self.engine.num_open == 0

    def tokens(self, name: str) -> list[TokenId]:
        outputs = self.told[name]
        assert all(isinstance(output, Output) for output in outputs), outputs
        return [output.sampled.token for output in outputs if isinstance(output, Output)]

    def operations(self, kind: type[CacheOperation]) -> list[Any]:
        steps = self.stage.steps
        return [op for step in steps for op in step.operations if isinstance(op, kind)]


def answer(prompt: str, num_tokens: int = NUM_TOKENS) -> list[TokenId]:
    return continuation(tuple(map(ord, prompt)), num_tokens)


def test_rules_live_as_long_as_their_sequence() -> None:
    bench = Bench()
    names = [bench.submit("hello", rules) for rules in (BIAS, None, REPETITION)]
    bench.finish()
    assert [bench.tokens(name) for name in names] == [answer("hello")] * 3
    assert len(bench.operations(NewRules)) == len(bench.operations(DropRules)) == 2
    assert not bench.stage.rules
    assert not bench.stage.has_failed


def test_a_request_without_rules_has_none_anywhere() -> None:
    bench = Bench()
    bench.submit("hello", None)
    bench.finish()
    assert not bench.operations(NewRules)
    assert not bench.operations(DropRules)
    samples = [
        s for step in bench.stage.steps if step.micro_batch for s in step.micro_batch.samples
    ]
    assert {sample.rules_id for sample in samples} == {None}


def test_they_are_made_before_the_prompt_is_computed() -> None:
    bench = Bench(chunk_tokens=2)
    bench.submit("a longer prompt", BIAS)
    bench.finish()
    first = bench.stage.steps[0]
    assert any(isinstance(operation, NewRules) for operation in first.operations)
    assert first.micro_batch is not None
    assert not first.micro_batch.samples


@pytest.mark.parametrize(
    ("rules", "sent"), [(BIAS, ""), (REPETITION, "hello"), (NEWEST, "llo")], ids=str
)
def test_the_prompt_goes_along_as_far_as_it_is_looked_at(rules: LogitRules, sent: str) -> None:
    bench = Bench()
    bench.submit("hello", rules)
    bench.finish()
    [made] = bench.operations(NewRules)
    assert made == NewRules(made.rules_id, rules, tuple(map(ord, sent)), ())


def test_a_sequence_that_starts_over_takes_what_it_generated_along() -> None:
    bench = Bench()
    has_failed = False

    def fails_once(row: Any) -> bool:
        nonlocal has_failed
        if len(row) == len("hello") + 3 and not has_failed:
            has_failed = True
            return True
        return False

    bench.stage.fails = fails_once
    name = bench.submit("hello", BIAS)
    bench.finish()
    assert bench.tokens(name) == answer("hello")
    assert [made.generated for made in bench.operations(NewRules)] == [
        (),
        tuple(answer("hello", 4)),
    ]
    assert not bench.stage.rules


def test_a_row_that_cannot_be_sampled_ends_alone() -> None:
    bench = Bench()
    spoilt = tuple(map(ord, "hello"))
    bench.stage.spoils = lambda row: len(row) == len(spoilt) + 2 and tuple(row[:5]) == spoilt
    broken, whole = bench.submit("hello", BIAS), bench.submit("world", BIAS)
    bench.finish()
    assert bench.tokens(whole) == answer("world")
    *outputs, error = bench.told[broken]
    assert len(outputs) == 2  # a step takes the newest token, and is spoilt at the third
    assert isinstance(error, RequestError)
    assert str(error) == "as it was told"
    assert not bench.stage.rules


def test_cancelled_stopped_and_lost_requests_leave_no_rules() -> None:
    bench = Bench()
    cancelled = bench.submit("hello", BIAS, max_tokens=50)
    stopped = bench.submit("world", BIAS, max_tokens=50, stop=(chr(answer("world")[2]),))
    for _ in range(6):
        bench.turn()
    bench.engine.cancel(cancelled)
    bench.finish()
    assert isinstance(bench.told[stopped][-1], Output)
    assert not bench.stage.rules
    bench.submit("lost", BIAS, max_tokens=50)
    for _ in range(4):
        bench.turn()
    bench.engine.begin_epoch(2)
    bench.engine.open()
    kept = bench.submit("hello", BIAS)
    bench.finish()
    assert bench.tokens(kept) == answer("hello")
    assert not bench.stage.rules


REQUESTS = st.lists(
    st.tuples(
        st.text("abc", min_size=1, max_size=70),
        st.sampled_from([None, BIAS, REPETITION, NEWEST]),
        st.integers(1, 20) | st.just(280),
        st.integers(0, 6),
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=40, deadline=None)
@given(st.data(), REQUESTS, st.sampled_from([1024, 2560, None]), st.sampled_from([1, 2, 256]))
def test_random_driving(
    data: st.DataObject,
    requests: list[tuple[str, LogitRules | None, int, int]],
    kv_tokens: int | None,
    max_rows: int,
) -> None:
    bench = Bench(kv_tokens=kv_tokens, max_rows=max_rows)
    failing = data.draw(st.sets(st.integers(2, 60), max_size=2))

    def fails_once(row: Any) -> bool:
        if len(row) in failing:
            failing.discard(len(row))
            return True
        return False

    bench.stage.fails = fails_once
    asked = []
    for prompt, rules, num_tokens, num_turns in requests:
        asked.append((bench.submit(prompt, rules, max_tokens=num_tokens), prompt, num_tokens))
        for _ in range(num_turns):
            bench.turn(data.draw(st.sampled_from([1, None])))
    cancelled = data.draw(st.sets(st.sampled_from([name for name, _, _ in asked]), max_size=2))
    for name in cancelled:
        bench.engine.cancel(name)
    bench.finish()
    assert not bench.stage.rules
    for name, prompt, num_tokens in asked:
        if name not in cancelled and not isinstance(bench.told[name][-1], StageError):
            assert bench.tokens(name) == answer(prompt, num_tokens)
    # A row may be in both of two failing steps; otherwise each answer is whole.
    errors = [told[-1] for told in bench.told.values() if told and isinstance(told[-1], StageError)]
    assert all("as it was told" in str(error) for error in errors)


def test_preempted_sequences_go_on_under_their_rules() -> None:
    bench = Bench(kv_tokens=2560)  # three short sequences, two that have grown
    prompts = ["a" * 20, "b" * 20, "c" * 20]
    names = [bench.submit(prompt, REPETITION, max_tokens=300) for prompt in prompts]
    bench.finish()
    assert bench.engine.statistics.num_preemptions > 0
    assert [bench.tokens(name) for name in names] == [answer(prompt, 300) for prompt in prompts]
    assert any(made.generated for made in bench.operations(NewRules))
    assert not bench.stage.rules
    assert not bench.stage.has_failed
