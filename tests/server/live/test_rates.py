from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.engine.statistics import EngineStatistics, StageStatistics, merged
from tbcluster.server.live.rates import rates
from tests.server.live.facts import statistics


def after(before: EngineStatistics, num_steps: int, **added: int) -> EngineStatistics:
    """So many steps later; each took 3 ms of each stage, 1 ms of wire, 2 ms of waiting."""
    return replace(
        before,
        num_steps=before.num_steps + num_steps,
        stages=tuple(
            StageStatistics(
                stage.compute_us + 3000 * num_steps,
                stage.idle_us + 2000 * num_steps,
                stage.wire_us + 1000 * num_steps,
                stage.num_steps + num_steps,
            )
            for stage in before.stages
        ),
        **{name: getattr(before, name) + count for name, count in added.items()},
    )


def test_rates_are_of_the_time_between_two_looks() -> None:
    before = after(statistics(2), 1000, num_generated_tokens=500)
    now = after(
        before,
        100,
        num_generated_tokens=400,
        num_prefill_tokens=60,
        round_trip_us=800_000,
        wire_us=200_000,
    )
    seen = rates(before, now, 2.0)
    assert seen.tokens_per_s == 200
    assert seen.prompt_tokens_per_s == 30
    assert (seen.step_ms, seen.wire_ms) == (8.0, 2.0)
    for stage in seen.stages:
        assert (stage.compute_ms, stage.wire_ms, stage.wait_ms) == (3.0, 1.0, 2.0)
        assert stage.load == pytest.approx(0.15)


def test_no_step_has_no_mean() -> None:
    now = statistics(2)
    seen = rates(now, now, 1.0)
    assert seen.step_ms is seen.stages[0].compute_ms is None
    assert seen.tokens_per_s == seen.stages[1].load == 0


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (None, after(statistics(2), 5)),
        (after(statistics(2), 9), after(statistics(2), 5)),
        (after(statistics(3), 1), after(statistics(2), 5)),
    ],
    ids=["first look", "counters began again", "other stages"],
)
def test_what_cannot_be_compared_tells_nothing(
    before: EngineStatistics | None, now: EngineStatistics
) -> None:
    seen = rates(before, now, 1.0)
    assert seen.tokens_per_s == 0
    assert [stage.compute_ms for stage in seen.stages] == [None] * len(now.stages)


def test_stages_of_replicas_have_means_of_their_own_steps() -> None:
    before = statistics(1)
    now = merged([after(before, 10), after(before, 90)])
    seen = rates(merged([before, before]), now, 1.0)
    assert [stage.compute_ms for stage in seen.stages] == [3.0, 3.0]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.001, 100))
def test_shares_are_shares(begun: int, num_steps: int, seconds: float) -> None:
    before = after(statistics(2), begun)
    for stage in rates(before, after(before, num_steps), seconds).stages:
        assert 0 <= stage.load <= 1
