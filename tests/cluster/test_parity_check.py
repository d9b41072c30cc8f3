"""The probe through the engine, over a scripted stage."""

import threading

import pytest

from tbcluster.cluster.parity_check import NUM_PROBE_TOKENS, probe_prompt, run_probe
from tbcluster.engine.engine import Engine
from tbcluster.engine.limits import Limits
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.scheduler import Scheduler
from tbcluster.errors import StageLostError
from tests.doubles.stage_double import StageDouble, continuation
from tests.doubles.text_double import CharacterDetokenizer

DEADLINE_S = 30.0
PROMPT = (1, 2, 3)


def new_engine(stage: StageDouble) -> Engine:
    pipeline = Pipeline(stage.inbound, stage.results)
    return Engine(pipeline, Scheduler(2, 8, 9), CharacterDetokenizer, Limits(128, None))


def test_the_probe_passes_requests_that_are_held() -> None:
    stage = StageDouble()
    engine = new_engine(stage)
    threads = [
        threading.Thread(target=target, daemon=True)
        for target in (engine.run, stage.work_until_woken)
    ]
    for thread in threads:
        thread.start()
    sampled = run_probe(engine, PROMPT, has_lost_one=lambda: False)
    engine.stop()
    stage.inbound.wake()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert [token.token for token in sampled] == continuation(PROMPT, NUM_PROBE_TOKENS)


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
