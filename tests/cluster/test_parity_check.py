"""The probe through the engine, over a scripted stage, and what it is compared with."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from tbcluster.cluster.parity import recomputed
from tbcluster.cluster.parity_check import (
    MAX_PROMPT_TOKENS,
    NUM_PROBE_TOKENS,
    ConsistencyCheck,
    ReferenceCheck,
    probe_prompt,
    run_probe,
)
from tbcluster.core import MicroBatch, Sample, SampledToken, TokenId
from tbcluster.engine.engine import Engine
from tbcluster.engine.pipeline import Pipeline
from tbcluster.errors import ParityError, StageLostError
from tbcluster.wire.operations import CopyCache, TakeRow
from tests.doubles import engines
from tests.doubles.stage_double import StageDouble, continuation

DEADLINE_S = 30.0
PROMPT = (1, 2, 3)


def new_engine(stage: StageDouble) -> Engine:
    pipeline = Pipeline(stage.inbound, stage.results)
    settings = engines.Settings()
    return engines.new_engine(pipeline, settings, engines.new_caches(settings))


@contextmanager
def running(stage: StageDouble, engine: Engine) -> Iterator[None]:
    """Engine and stage in threads of their own."""
    threads = [
        threading.Thread(target=target, daemon=True)
        for target in (engine.run, stage.work_until_woken)
    ]
    for thread in threads:
        thread.start()
    yield
    engine.stop()
    stage.inbound.wake()
    for thread in threads:
        thread.join(DEADLINE_S)


def probe(
    stage: StageDouble, engine: Engine, prompt: tuple[TokenId, ...] = PROMPT
) -> list[TokenId]:
    """What the probe's answer is, once engine and stage have ended."""
    with running(stage, engine):
        sampled = run_probe(engine, prompt, has_lost_one=lambda: False)
    return [token.token for token in sampled]


class TellingStage(StageDouble):
    """Gives logprobs, and takes caches for other than they are where the test wants that."""

    def __init__(self) -> None:
        super().__init__()
        self.forgets = False
        self.logprob_error = 0.0

    def _compute(self, micro_batch: MicroBatch) -> tuple[SampledToken, ...]:
        sampled = super()._compute(micro_batch)
        if self.forgets and sampled:
            # What a decode step adds is lost: the next one finds a cache that is too short.
            for row in self.contexts[micro_batch.cache_id]:
                row.pop()
        return sampled

    def _sample(self, row: Sequence[TokenId], sample: Sample) -> SampledToken:
        token = super()._sample(row, sample).token
        # A row that has decoded is longer than the probe's prompt.
        error = self.logprob_error if len(self.steps) > 1 else 0.0
        logprob = -0.001 * (sum(row) % 97) + error * (len(self.steps) - 1)
        return SampledToken(token, logprob, ((token, logprob), (0, logprob - 2)))


def check(stage: StageDouble) -> None:
    engine = new_engine(stage)
    with running(stage, engine):
        ConsistencyCheck(PROMPT, tolerance=0.01).run(engine, lambda: False)


def test_the_probe_passes_requests_that_are_held() -> None:
    stage = StageDouble()
    assert probe(stage, new_engine(stage)) == continuation(PROMPT, NUM_PROBE_TOKENS)


def test_the_probe_computes_all_of_its_prompt() -> None:
    """A known prefix could hide that a stage computes something else."""
    stage = StageDouble()
    probe(stage, new_engine(stage), tuple(range(MAX_PROMPT_TOKENS)))
    operations = [operation for step in stage.steps for operation in step.operations]
    assert not any(isinstance(operation, CopyCache | TakeRow) for operation in operations)


def test_a_stage_lost_before_the_probe_does_not_let_it_wait_for_ever() -> None:
    stage = StageDouble()
    engine = new_engine(stage)
    with pytest.raises(StageLostError):
        run_probe(engine, PROMPT, has_lost_one=lambda: True)
    engine.step(0)
    assert engine.num_open == 0


def test_stages_that_agree_with_themselves_pass() -> None:
    stage = TellingStage()
    check(stage)
    # The probe step by step, then each of its tokens after what came before, on empty caches.
    batches = [step.micro_batch for step in stage.steps if step.micro_batch is not None]
    assert len([batch for batch in batches if batch.samples]) == 2 * NUM_PROBE_TOKENS
    operations = [operation for step in stage.steps for operation in step.operations]
    assert not any(isinstance(operation, CopyCache) for operation in operations)


def test_a_cache_that_loses_what_a_step_adds_is_found() -> None:
    stage = TellingStage()
    stage.forgets = stage.fails_late = True
    with pytest.raises(ParityError, match=r"probe token 2: .* a prompt of the same tokens"):
        check(stage)


def test_probabilities_that_drift_are_found() -> None:
    stage = TellingStage()
    stage.logprob_error = 0.02
    with pytest.raises(ParityError, match="a prompt of the same tokens"):
        check(stage)


def test_a_stage_that_gives_no_numbers_is_found() -> None:
    with pytest.raises(ParityError, match="gives no logprobs"):
        check(StageDouble())


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_an_answer_of_an_earlier_run_is_compared_with(error: float) -> None:
    stage = TellingStage()
    engine = new_engine(stage)
    with running(stage, engine):
        sampled = run_probe(engine, PROMPT, lambda: False)
    known = replace(recomputed(sampled), logprobs=tuple((t.logprob or 0) + error for t in sampled))
    check = ReferenceCheck(PROMPT, 0.01, known)
    assert check.reference() is None
    stage = TellingStage()
    engine = new_engine(stage)
    with running(stage, engine):
        if error:
            with pytest.raises(ParityError, match="the unsharded model"):
                check.run(engine, lambda: False)
        else:
            check.run(engine, lambda: False)
    check.close()
    assert check.reference() == (None if error else known), "what was wrong is not kept"


class Encoder:
    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens

    def encode(self, text: str) -> list[int]:
        return self._tokens if text else []


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([5, 6], (5, 6)),
        ([5, 100, 6], (5, 6)),
        (list(range(40)), tuple(range(16))),
        ([100, 200], (0,)),
        ([], (0,)),
    ],
)
def test_the_prompt_is_short_and_in_the_vocabulary(
    tokens: list[int], expected: tuple[int, ...]
) -> None:
    assert probe_prompt(Encoder(tokens), vocab_size=100) == expected
