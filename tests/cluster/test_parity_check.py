"""The probe through the engine, over a scripted stage."""

import threading

import pytest

from tbcluster.cluster.parity_check import (
    MAX_PROMPT_TOKENS,
    NUM_PROBE_TOKENS,
    probe_prompt,
    run_probe,
)
from tbcluster.core import TokenId
from tbcluster.engine.engine import Engine
from tbcluster.engine.pipeline import Pipeline
from tbcluster.errors import StageLostError
from tbcluster.wire.operations import CopyCache, TakeRow
from tests.doubles import engines
from tests.doubles.stage_double import StageDouble, continuation

DEADLINE_S = 30.0
PROMPT = (1, 2, 3)


def new_engine(stage: StageDouble) -> Engine:
    pipeline = Pipeline(stage.inbound, stage.results)
    settings = engines.Settings()
    return engines.new_engine(pipeline, settings, engines.new_caches(settings))


def probe(
    stage: StageDouble, engine: Engine, prompt: tuple[TokenId, ...] = PROMPT
) -> list[TokenId]:
    """What the probe's answer is, once engine and stage have ended."""
    threads = [
        threading.Thread(target=target, daemon=True)
        for target in (engine.run, stage.work_until_woken)
    ]
    for thread in threads:
        thread.start()
    sampled = run_probe(engine, prompt, has_lost_one=lambda: False)
    engine.stop()
    stage.inbound.wake()
    for thread in threads:
        thread.join(DEADLINE_S)
    return [token.token for token in sampled]


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
