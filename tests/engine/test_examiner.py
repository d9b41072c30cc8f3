"""Examinations: one step on a cache of its own, beside whatever else is running."""

import pytest

from tbcluster.core import (
    SampledToken,
)
from tbcluster.engine.examination import Examination
from tbcluster.errors import (
    ClusterClosedError,
    StageError,
    StageLostError,
    StarvedError,
)
from tbcluster.wire.operations import NewCache
from tests.doubles.epochs import (
    PROMPTS,
    Bench,
    assert_all_whole,
    examined,
)
from tests.doubles.stage_double import some_letter


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
