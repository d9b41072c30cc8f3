"""Stages that are lost and come back, others, none: what requests are told of it, which is nothing
but their tokens. Over in-memory channels, with a scripted stage at the other end."""

from typing import Any

import pytest

from tbcluster.core import (
    Output,
    Request,
    SamplingParams,
)
from tbcluster.engine.scheduler import UNLIMITED
from tbcluster.errors import (
    ClusterClosedError,
    QueueFullError,
    StageLostError,
    StarvedError,
    TbclusterError,
)
from tests.doubles.epochs import (
    NUM_TOKENS,
    PROMPTS,
    SYSTEM,
    Bench,
    SeededStage,
    assert_all_whole,
    assert_right_so_far,
    assert_whole,
)

# Pause and go on


@pytest.mark.parametrize("max_per_sequence", [1, UNLIMITED])
@pytest.mark.parametrize("num_turns", range(1, 14))
def test_running_requests_wait_and_go_on_in_the_new_epoch(
    num_turns: int, max_per_sequence: int
) -> None:
    bench = Bench(max_running=2, max_per_sequence=max_per_sequence)
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


@pytest.mark.parametrize("is_result", [False, True])
@pytest.mark.parametrize("num_turns", range(1, 12))
def test_a_message_that_is_lost_is_missed(num_turns: int, is_result: bool) -> None:
    bench = Bench()
    for prompt in PROMPTS[:2]:
        bench.submit(prompt, max_tokens=9)
    bench.turns(num_turns)
    channel = bench.stage.results if is_result else bench.stage.inbound
    is_lost = False
    while not is_lost:
        bench.engine.step(0)
        bench.stage.work(None if is_result else 0)
        is_lost = channel.receive(0) is not None
        bench.stage.work()
    bench.finish()
    assert bench.epoch == 2
    for request, told in bench.asked.values():
        assert_whole(request, told)
    assert bench.caches_left() == set()


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
    moving: list[Any] = []
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


def test_what_could_not_be_finished_elsewhere_waits_where_it_is() -> None:
    first, second = Bench(is_open=False), Bench(kv_tokens=1200)
    long, short = first.submit(PROMPTS[2], max_tokens=1200), first.submit(PROMPTS[0])
    first.engine.surrender(second.engine.adopt, second.engine.has_room)
    first.turns(1)
    assert (first.engine.num_open, second.engine.num_open) == (1, 1)
    second.finish()
    assert (long, len(short)) == ([], NUM_TOKENS)


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
