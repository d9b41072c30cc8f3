"""Requests for embeddings through the whole engine, with a scripted stage at the other end."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.core import (
    KV_BLOCK_TOKENS,
    NO_TOKEN,
    FinishReason,
    MicroBatch,
    Output,
    Pooling,
    Request,
    TokenId,
)
from tbcluster.engine.pipeline import Pipeline
from tbcluster.errors import StageError, TbclusterError
from tbcluster.wire.messages import Result, encode_result
from tests.doubles.engines import Settings, new_caches, new_engine
from tests.doubles.stage_double import StageDouble, continuation, embedding_of

SYSTEM = tuple(map(ord, "You answer briefly, kindly, and in the language of the question. " * 2))
TEXT = tuple(map(ord, "a prompt of more than one chunk"))
PROMPTS = [TEXT, (5,), tuple(map(ord, "to")), SYSTEM]
MAX_TURNS = 2000

both = pytest.mark.parametrize("pooling", Pooling)


class Bench:
    """An engine, the stage that answers it, and what each request was told."""

    def __init__(self, **settings: Any) -> None:
        self.stage = StageDouble()
        self.caches = new_caches(Settings(**settings))
        self.pipeline = Pipeline(self.stage.inbound, self.stage.results)
        self.engine = new_engine(self.pipeline, Settings(**settings), self.caches)
        self.engine.open()
        self._num_requests = 0

    def embed(
        self, prompt: tuple[TokenId, ...], pooling: Pooling, **fields: Any
    ) -> list[Output | TbclusterError]:
        return self.ask(prompt, pooling=pooling, max_tokens=1, **fields)

    def ask(self, prompt: tuple[TokenId, ...], **fields: Any) -> list[Output | TbclusterError]:
        told: list[Output | TbclusterError] = []
        fields = {"request_id": str(self._num_requests), **fields}
        self._num_requests += 1
        self.engine.submit(Request(prompt=prompt, **fields), told.append)
        return told

    def turns(self, number: int) -> None:
        for _ in range(number):
            self.engine.step(0)
            self.stage.work()

    def finish(self) -> None:
        for _ in range(MAX_TURNS):
            if self.engine.num_open == 0:
                break
            self.turns(1)
        assert self.engine.num_open == 0
        self.turns(5)
        prefixes = {entry.cache_id for entry in self.caches.prefixes}
        assert set(self.stage.contexts) == prefixes, "an embedding leaves nothing behind"

    def batches(self) -> Iterator[MicroBatch]:
        for step in self.stage.steps:
            if step.micro_batch is not None:
                yield step.micro_batch


def embedding(told: list[Output | TbclusterError]) -> tuple[float, ...]:
    """Of what must be the only thing that was told."""
    (output,) = told
    assert isinstance(output, Output), output
    assert (output.text, output.sampled, output.num_generated_tokens) == ("", NO_TOKEN, 0)
    assert output.finish_reason is FinishReason.STOP
    assert output.embedding is not None
    return output.embedding


def expected(prompt: tuple[TokenId, ...], pooling: Pooling) -> Any:
    vector = embedding_of(prompt, pooling)
    if pooling is Pooling.MEAN:
        vector = vector / np.float32(len(prompt))
    return pytest.approx(vector.tolist(), rel=1e-6)


@both
@pytest.mark.parametrize("max_per_sequence", [1, 1 << 30])
def test_many_at_once_beside_a_stream(pooling: Pooling, max_per_sequence: int) -> None:
    bench = Bench(max_per_sequence=max_per_sequence)
    stream = bench.ask(TEXT, max_tokens=50)
    bench.turns(10)
    asked = [(prompt, bench.embed(prompt, pooling)) for prompt in PROMPTS * 12]
    bench.finish()
    for prompt, told in asked:
        assert embedding(told) == expected(prompt, pooling)
    tokens = [output.sampled.token for output in stream if isinstance(output, Output)]
    assert tokens == continuation(TEXT, 50)


@both
def test_all_tokens_are_computed_in_chunks_and_none_is_sampled(pooling: Pooling) -> None:
    bench = Bench()
    told = bench.embed(TEXT, pooling)
    bench.finish()
    batches = list(bench.batches())
    assert len(batches) > 1
    assert sum((batch.tokens for batch in batches), ()) == TEXT
    assert not any(batch.samples for batch in batches)
    asked = [batch.pooling for batch in batches]
    others = None if pooling is Pooling.LAST else pooling
    assert asked == [others] * (len(batches) - 1) + [pooling]
    (output,) = told
    assert isinstance(output, Output)
    assert output.num_prompt_tokens == len(TEXT)
    assert output.started_at <= output.first_token_at <= output.emitted_at


def test_the_last_token_may_follow_a_known_prefix_and_a_mean_may_not() -> None:
    bench = Bench()
    bench.ask(SYSTEM, max_tokens=1)
    bench.finish()
    num_before = len(bench.stage.steps)
    for pooling, num_known in ((Pooling.LAST, len(SYSTEM) - 1), (Pooling.MEAN, 0)):
        told = bench.embed(SYSTEM, pooling)
        bench.finish()
        assert embedding(told) == expected(SYSTEM, pooling)
        (output,) = told
        assert isinstance(output, Output)
        assert output.num_cached_tokens == num_known
    assert len(bench.stage.steps) > num_before
    told = bench.embed(SYSTEM, Pooling.LAST, cache_prompt=False)
    bench.finish()
    assert embedding(told) == expected(SYSTEM, Pooling.LAST)
    (output,) = told
    assert isinstance(output, Output)
    assert output.num_cached_tokens == 0


@both
def test_it_leaves_no_prefix_and_nobody_waits_for_one(pooling: Pooling) -> None:
    bench = Bench()
    asked = [bench.embed(SYSTEM, pooling) for _ in range(3)]
    bench.turns(1)
    assert len(bench.stage.contexts) == 3
    bench.finish()
    assert [embedding(told) for told in asked] == [expected(SYSTEM, pooling)] * 3
    assert len(bench.caches.prefixes) == 0


@both
def test_a_prefix_that_turns_out_to_lack_tokens(pooling: Pooling) -> None:
    bench = Bench()
    bench.stage.fails_late = True
    leader = bench.ask(SYSTEM, max_tokens=2)
    bench.turns(1)
    asked = [bench.embed((*SYSTEM, number), pooling) for number in range(3)]
    failures = iter([True])
    bench.stage.fails = lambda row: len(row) > 60 and next(failures, False)
    bench.finish()
    assert [o.sampled.token for o in leader if isinstance(o, Output)] == continuation(SYSTEM, 2)
    for number, told in enumerate(asked):
        assert embedding(told) == expected((*SYSTEM, number), pooling)


@both
@pytest.mark.parametrize("num_tokens", [0, 4, 12, len(TEXT) - 4])
def test_a_chunk_that_fails_is_computed_again_once(pooling: Pooling, num_tokens: int) -> None:
    bench = Bench()
    failures = iter([True])
    bench.stage.fails = lambda row: len(row) >= num_tokens and next(failures, False)
    told = bench.embed(TEXT, pooling)
    bench.finish()
    assert embedding(told) == expected(TEXT, pooling)

    bench.stage.fails = lambda row: len(row) >= num_tokens
    told = bench.embed(TEXT, pooling)
    bench.finish()
    assert [type(item) for item in told] == [StageError]


@both
@pytest.mark.parametrize("num_turns", range(8))
def test_cancelling_at_any_moment(pooling: Pooling, num_turns: int) -> None:
    bench = Bench()
    told = bench.embed(TEXT, pooling, request_id="x")
    other = bench.embed(SYSTEM, pooling)
    bench.turns(num_turns)
    was_over = bool(told)
    bench.engine.cancel("x")
    bench.finish()
    assert bool(told) is was_over
    assert embedding(other) == expected(SYSTEM, pooling)


@both
def test_memory_that_holds_few_at_a_time(pooling: Pooling) -> None:
    bench = Bench(kv_tokens=2048)
    stream = bench.ask(TEXT, max_tokens=200)
    asked = [bench.embed(SYSTEM, pooling) for _ in range(6)]
    bench.finish()
    assert [embedding(told) for told in asked] == [expected(SYSTEM, pooling)] * 6
    assert len(stream) == 200
    # All that the memory holds: no token follows that would need room.
    longest = (7,) * (2048 - 2 * (KV_BLOCK_TOKENS - 1))
    told = bench.embed(longest, pooling)
    bench.finish()
    assert embedding(told) == expected(longest, pooling)


@both
def test_one_that_gives_up_its_cache_is_computed_again(pooling: Pooling) -> None:
    bench = Bench(kv_tokens=2560, num_stages=1)
    streams = [bench.ask((number,) * 100, max_tokens=300) for number in range(1, 3)]
    while len(streams[0]) < 150:
        bench.turns(1)
    told = bench.embed(SYSTEM * 2, pooling)
    bench.finish()
    assert bench.engine.statistics.num_preemptions == 1
    assert embedding(told) == expected(SYSTEM * 2, pooling)
    assert [len(stream) for stream in streams] == [300, 300]


@both
@pytest.mark.parametrize("num_turns", range(1, 5))
def test_a_lost_stage_only_delays_it(pooling: Pooling, num_turns: int) -> None:
    bench = Bench(chunk_tokens=8)
    told = bench.embed(TEXT, pooling)
    bench.turns(num_turns)
    bench.engine.pause()
    bench.turns(2)
    bench.engine.begin_epoch(2)
    bench.engine.open()
    bench.finish()
    assert embedding(told) == expected(TEXT, pooling)


@pytest.mark.parametrize("vector", [None, b"", np.array([np.nan], "<f4").tobytes()])
def test_an_answer_that_is_no_vector_is_an_error(vector: bytes | None) -> None:
    bench = Bench()
    told = bench.embed((5,), Pooling.LAST)
    for _ in range(4):
        bench.engine.step(0)
        bench.stage.results.send(encode_result(Result(1, len(bench.stage.steps), vector=vector)))
        bench.engine.step(0)
        bench.stage.steps.append(None)  # type: ignore[arg-type]
    assert [type(item) for item in told] == [StageError]
    assert bench.engine.num_open == 0


moves = st.lists(
    st.tuples(st.sampled_from(["embed", "embed", "ask", "cancel", "fail"]), st.integers(0, 9)),
    max_size=25,
)


@given(
    moves,
    st.sampled_from([None, 2048, 4096]),
    st.sampled_from([None, 0]),
    st.sampled_from([1, 1 << 30]),
)
@settings(max_examples=60, deadline=None)
def test_whatever_comes_each_vector_is_right(
    script: list[tuple[str, int]],
    kv_tokens: int | None,
    max_trimmable_tokens: int | None,
    max_per_sequence: int,
) -> None:
    """Embeddings and streams that share prefixes, some cancelled, some of whose steps fail."""
    bench = Bench(
        kv_tokens=kv_tokens,
        max_trimmable_tokens=max_trimmable_tokens,
        max_per_sequence=max_per_sequence,
    )
    failures: list[bool] = []
    bench.stage.fails = lambda _: failures.pop() if failures else False
    asked: list[tuple[tuple[TokenId, ...], Pooling | None, list[Output | TbclusterError]]] = []
    cancelled: set[int] = set()
    for move, number in script:
        prompt = SYSTEM[: 20 * number + 1] + TEXT[: number + 1]
        pooling = list(Pooling)[number % 2] if move == "embed" else None
        match move:
            case "embed" | "ask":
                told = bench.ask(prompt, pooling=pooling, max_tokens=6)
                asked.append((prompt, pooling, told))
            case "cancel":
                bench.engine.cancel(str(number))
                cancelled.add(number)
            case "fail":
                failures.append(True)
        bench.turns(number % 4)
    bench.finish()
    for index, (prompt, pooling, told) in enumerate(asked):
        if told and isinstance(told[-1], StageError):
            continue  # failed twice
        if index in cancelled and not told:
            continue
        if pooling is not None:
            assert embedding(told) == expected(prompt, pooling)
        elif index not in cancelled:
            tokens = [output.sampled.token for output in told if isinstance(output, Output)]
            assert tokens == continuation(prompt, 6)
