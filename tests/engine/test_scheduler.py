"""The scheduler on a virtual clock, and under random arrivals, lengths and cancels."""

import math
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.core import MicroBatch, Request, TokenId, VisitTiming
from tbcluster.engine.scheduler import MAX_IN_VAIN, Scheduler
from tbcluster.engine.sequence import Sequence
from tbcluster.wire.messages import Step, decode_result, encode_step
from tests.doubles.engines import Settings, new_caches, new_scheduler
from tests.doubles.stage_double import StageDouble, some_letter
from tests.doubles.virtual_pipeline import Stream, VirtualPipeline

# (fixed, per token) microseconds per stage: reading weights dominates, or computing does.
READS_WEIGHTS = (20_000.0, 200.0)
COMPUTES = (2_000.0, 850.0)
ENDLESS = 10**6


# Random driving: every token goes once, in order, to the right cache


@dataclass
class Driver:
    """Does what an engine does, with a stage double that checks positions, and checks the rest."""

    shape: Settings
    stage: StageDouble = field(default_factory=StageDouble)
    running: dict[int, Sequence] = field(default_factory=dict)
    waiting: deque[Sequence] = field(default_factory=deque)
    in_flight: deque[MicroBatch] = field(default_factory=deque)
    num_added: int = 0
    num_steps: int = 0

    def __post_init__(self) -> None:
        self.caches = new_caches(self.shape)
        self.scheduler: Scheduler = new_scheduler(self.shape, self.caches)

    def add(self, prompt_length: int, num_tokens: int, prompt_kind: int) -> None:
        prompt = tuple(ord("a") + (prompt_kind + i) % 26 for i in range(prompt_length))
        request = Request(str(self.num_added), prompt, num_tokens)
        self.waiting.append(Sequence(request, lambda _: None, self.num_added))
        self.num_added += 1

    def cancel(self, index: int) -> None:
        everyone = [*self.running.values(), *self.waiting]
        if everyone:
            self.end(everyone[index % len(everyone)])

    def end(self, sequence: Sequence) -> None:
        if self.running.pop(sequence.arrival, None) is None:
            self.waiting.remove(sequence)
        else:
            self.scheduler.remove(sequence, keeps_prefix=sequence.uses_prefixes)

    def send(self) -> None:
        self.scheduler.settle()
        self.admit()
        while micro_batch := self.scheduler.schedule():
            self.check(micro_batch)
            self.submit(micro_batch)
        self.submit(None)
        for sequence in self.scheduler.take_preempted():
            self.waiting.appendleft(self.running.pop(sequence.arrival))
        self.check_is_busy()

    def admit(self) -> None:
        while self.waiting:
            sequence = self.waiting[0]
            started = self.caches.start(sequence.tokens, uses_prefixes=True)
            if started is None:
                return
            sequence.cache_id, sequence.num_scheduled = started.cache_id, started.num_tokens
            self.scheduler.add(sequence)
            self.running[sequence.arrival] = self.waiting.popleft()

    def submit(self, micro_batch: MicroBatch | None) -> None:
        operations = self.caches.take_operations()
        if micro_batch is None and not operations:
            return
        step = Step(1, self.num_steps, operations, micro_batch)
        self.num_steps += 1
        self.stage.inbound.send([bytes(frame) for frame in encode_step(step)])
        if micro_batch is not None:
            self.in_flight.append(micro_batch)

    def check(self, micro_batch: MicroBatch) -> None:
        assert micro_batch.num_rows <= self.shape.max_rows
        if not micro_batch.samples:
            assert len(micro_batch.tokens) <= self.shape.chunk_tokens
            mine = [batch for batch in self.in_flight if batch.cache_id == micro_batch.cache_id]
            assert len(mine) < self.shape.max_per_sequence
            return
        # One step of a lane at a time, and no lane larger than an even share.
        assert all(batch.cache_id != micro_batch.cache_id for batch in self.in_flight)
        num_lanes = max(self.shape.num_stages, math.ceil(len(self.running) / self.shape.max_rows))
        assert micro_batch.num_rows <= math.ceil(len(self.running) / num_lanes)

    def check_is_busy(self) -> None:
        """Whoever has no step on its way waits for something that has."""
        assert self.in_flight or not (self.running or self.waiting)
        limit = 2 * (self.shape.num_stages + 1)
        assert len(self.in_flight) == self.scheduler.num_in_flight <= limit

    def answer(self) -> None:
        """The oldest step comes back; steps of operations alone have no answer of interest."""
        if not self.in_flight:
            return
        while True:
            assert self.stage.work(1) == 1
            frames = self.stage.results.receive(0)
            assert frames is not None
            result = decode_result(frames)
            assert result.error is None, result.error
            if self.stage.steps[-1].micro_batch is not None:
                break
        micro_batch = self.in_flight.popleft()
        sequences = self.scheduler.completed(micro_batch, (VisitTiming(10, 0),))
        for sequence, sampled in zip(sequences, result.sampled, strict=False):
            if sequence is not None:
                self.take(sequence, sampled.token)

    def take(self, sequence: Sequence, token: TokenId) -> None:
        # The double saw the right tokens in the right order, or it would say another letter.
        assert token == some_letter(sequence.tokens)
        sequence.tokens.append(token)
        if sequence.num_generated >= sequence.request.max_tokens:
            self.end(sequence)

    def drain(self) -> None:
        num_tokens = sum(
            len(s.request.prompt) + s.request.max_tokens for s in self.running.values()
        ) + sum(len(s.request.prompt) + s.request.max_tokens for s in self.waiting)
        # Even when each sequence is computed again for every other one.
        for _ in range(20 * (num_tokens + 10) * (len(self.running) + len(self.waiting) + 1)):
            self.send()
            if not self.in_flight:
                return
            self.answer()
        raise AssertionError("some sequence never ends")


actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.integers(1, 60) | st.integers(1, 200),
            st.integers(1, 12),
            st.sampled_from([0, 0, 1, 7]),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 9), st.just(0), st.just(0)),
        st.tuples(st.sampled_from(["send", "answer", "answer"]), *(st.just(0),) * 3),
    ),
    max_size=100,
)
shapes = st.builds(
    Settings,
    num_stages=st.integers(1, 4),
    max_rows=st.sampled_from([1, 2, 256]),
    max_per_sequence=st.sampled_from([1, 1 << 30]),
    chunk_tokens=st.integers(1, 40),
    kv_tokens=st.sampled_from([768, 1024, 1536, 3072, 1 << 40]),
    max_trimmable_tokens=st.sampled_from([None, 0, 30]),
)


@settings(deadline=None)
@given(actions, shapes)
def test_every_token_goes_once_in_order_and_everyone_ends(
    script: list[tuple[str, int, int, int]], shape: Settings
) -> None:
    driver = Driver(shape)
    for name, first, second, third in script:
        match name:
            case "add":
                driver.add(first, second, third)
            case "cancel":
                driver.cancel(first)
            case "send":
                driver.send()
            case "answer":
                driver.answer()
    driver.drain()
    assert not driver.running
    assert not driver.waiting
    driver.send()
    driver.stage.work()
    # What is left on the stages are the known prefixes, and no more than there is memory for.
    kept = {entry.cache_id: list(entry.tokens) for entry in driver.caches.prefixes}
    assert {i: rows[0] for i, rows in driver.stage.contexts.items()} == kept
    assert shape.kv_tokens is not None
    assert driver.stage.num_tokens <= shape.kv_tokens
    (used,) = driver.caches.memory.used
    assert used == sum(driver.caches.memory.bytes_for(len(t))[0] for t in kept.values())


# Pace


def percentile_95(values: list[float]) -> float:
    return sorted(values)[math.floor(len(values) * 0.95)]


def settled(stages: list[tuple[float, float]], num_streams: int) -> tuple[VirtualPipeline, float]:
    """A pipeline in which so many streams have been decoding for a while."""
    pipeline = VirtualPipeline(stages)
    for length in range(num_streams):
        pipeline.add(20 + length, ENDLESS)
    round_us = sum(fixed + token * num_streams for fixed, token in stages)
    pipeline.run(until=30 * round_us * max(1, num_streams / len(stages)))
    began = pipeline.now
    pipeline.run(until=began + 100 * round_us)
    return pipeline, began


@pytest.mark.parametrize("num_streams", [1, 2, 8, 16])
@pytest.mark.parametrize(
    "stages", [[READS_WEIGHTS], [READS_WEIGHTS] * 2, [READS_WEIGHTS] * 4, [COMPUTES] * 2]
)
def test_a_long_prompt_leaves_running_streams_their_pace(
    stages: list[tuple[float, float]], num_streams: int
) -> None:
    pipeline, began = settled(stages, num_streams)
    running = list(pipeline.streams.values())
    arrived = pipeline.now
    undisturbed = [gap for stream in running for gap in stream.gaps(began, arrived)]
    prompt = pipeline.add(1500, 1)
    pipeline.run_until_done(prompt)
    disturbed = [gap for stream in running for gap in stream.gaps(arrived, pipeline.now)]
    assert percentile_95(disturbed) <= 2.5 * percentile_95(undisturbed)
    # The prompt gets its share as well, even where chunks that leave the pace are small.
    alone = VirtualPipeline(stages)
    alone.run_until_done(alone.add(1500, 1))
    assert pipeline.now - arrived <= 8 * alone.now


@pytest.mark.parametrize(("num_stages", "num_streams"), [(2, 16), (4, 16), (2, 2), (4, 4)])
def test_the_busiest_stage_is_hardly_ever_idle(num_stages: int, num_streams: int) -> None:
    pipeline, began = settled([READS_WEIGHTS] * num_stages, num_streams)
    busy = [stage.busy_us for stage in pipeline.stages]
    began = pipeline.now
    pipeline.run(until=began + 5e6)
    work = max(s.busy_us - b for s, b in zip(pipeline.stages, busy, strict=True))
    assert work / (pipeline.now - began) >= 0.95


def test_an_uneven_pipeline_goes_at_the_pace_of_its_slowest_stage() -> None:
    pipeline = VirtualPipeline([(10_000, 0), (20_000, 0), (10_000, 0), (10_000, 0)])
    streams = [pipeline.add(8, ENDLESS) for _ in range(8)]
    pipeline.run(until=2e6)
    began = pipeline.now
    pipeline.run(until=began + 4e6)
    num_tokens = sum(len(s.gaps(began, pipeline.now)) for s in streams)
    rows_per_lane = len(streams) / 4
    assert num_tokens / 4e6 >= 0.95 * rows_per_lane / 20_000


# Prompts


def test_the_chunks_of_one_prompt_fill_the_pipeline() -> None:
    pipeline = VirtualPipeline([COMPUTES] * 2)
    warm = pipeline.add(40, 3)
    pipeline.run_until_done(warm)
    began = pipeline.now
    pipeline.run_until_done(pipeline.add(1500, 1))
    in_turn = 2 * (COMPUTES[0] + 1500 * COMPUTES[1])
    assert in_turn / (pipeline.now - began) >= 1.75


def test_the_chunks_of_several_prompts_fill_the_pipeline() -> None:
    pipeline = VirtualPipeline([READS_WEIGHTS] * 4)
    pipeline.run_until_done(pipeline.add(40, 3))
    began = pipeline.now
    prompts = [pipeline.add(2000, 1) for _ in range(4)]
    for prompt in prompts:
        pipeline.run_until_done(prompt)
    in_turn = 4 * 4 * (READS_WEIGHTS[0] + 2000 * READS_WEIGHTS[1])
    assert in_turn / (pipeline.now - began) >= 2.5


def test_a_short_prompt_does_not_wait_for_a_long_one() -> None:
    pipeline = VirtualPipeline([READS_WEIGHTS] * 2)
    pipeline.run_until_done(pipeline.add(40, 2))
    long = pipeline.add(20_000, 1)
    pipeline.run(until=pipeline.now + 200_000)
    short = pipeline.add(100, 1)
    arrived = pipeline.now
    assert pipeline.run_until_done(short) - arrived < 1_500_000
    assert not long.token_times
    pipeline.run_until_done(long)


def test_a_stream_of_short_prompts_does_not_starve_a_long_one() -> None:
    pipeline = VirtualPipeline([READS_WEIGHTS] * 2)
    long = pipeline.add(4_000, 1)
    others: list[Stream] = []
    while not long.token_times:
        others.append(pipeline.add(400, 1))
        # Faster than they can be computed.
        pipeline.run(until=pipeline.now + 40_000)
        assert len(others) < 1000
    # Others of its own length together may go before it, and what they had in flight.
    assert 5 < sum(bool(other.token_times) for other in others) < 30


def test_a_cancelled_stream_frees_its_row_within_two_steps() -> None:
    pipeline, _ = settled([READS_WEIGHTS] * 2, 8)
    victim = next(iter(pipeline.streams.values()))
    pipeline.cancel(victim)
    (used,) = pipeline.caches.memory.used
    pipeline.run(until=pipeline.now + 2 * (2 * READS_WEIGHTS[0] + 16 * READS_WEIGHTS[1]))
    assert pipeline.scheduler.num_sequences == 7
    (left,) = pipeline.caches.memory.used
    assert left < used


def test_a_new_epoch_forgets_all() -> None:
    pipeline, _ = settled([READS_WEIGHTS] * 2, 3)
    pipeline.scheduler.reset()
    pipeline.caches.clear()
    assert pipeline.scheduler.num_sequences == pipeline.scheduler.num_in_flight == 0
    assert pipeline.scheduler.schedule() is None
    assert pipeline.caches.take_operations() == ()
    assert pipeline.caches.memory.used == (0,)


def test_no_stream_stalls_for_want_of_an_even_share() -> None:
    """The long row makes its lane's rows too wide for the room there is: streams that were let go
    of for evenness must go back to where they came from."""
    driver = Driver(Settings(chunk_tokens=2048, kv_tokens=11_000))
    for kind in range(7):
        driver.add(20 + kind, 600, kind)
    driver.add(1700, 600, 8)
    waited = dict.fromkeys(range(8), 0)
    for _ in range(3000):
        driver.send()
        before = {arrival: len(s.tokens) for arrival, s in driver.running.items()}
        driver.answer()
        for arrival, sequence in driver.running.items():
            has_moved = len(sequence.tokens) > before.get(arrival, 0)
            waited[arrival] = 0 if has_moved else waited[arrival] + 1
            assert waited[arrival] < 60 or not sequence.num_generated, f"{arrival} has stalled"


def test_who_has_started_over_in_vain_goes_first_and_at_full_pace() -> None:
    def first_token_after_us(num_in_vain: int) -> float:
        pipeline, _ = settled([COMPUTES] * 2, 8)
        arrived = pipeline.now
        other = pipeline.add(200, 1)
        prompt = pipeline.add(1500, 1)
        prompt.sequence.num_in_vain = num_in_vain
        pipeline.run_until_done(prompt)
        assert bool(other.token_times) is (num_in_vain <= MAX_IN_VAIN)
        return prompt.token_times[0] - arrived

    assert first_token_after_us(2) < 0.7 * first_token_after_us(0)
