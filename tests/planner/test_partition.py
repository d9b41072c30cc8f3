"""Splits against brute force over every choice of legal cuts."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import StageRange
from tbcluster.errors import PlanError
from tbcluster.planner.partition import even_split


@st.composite
def models(draw: st.DrawFn) -> tuple[int, tuple[int, ...], int]:
    """Layers, legal cuts, and a number of stages that these allow."""
    num_layers = draw(st.integers(1, 14))
    cuts = draw(st.sets(st.integers(1, num_layers - 1))) if num_layers > 1 else set()
    num_stages = draw(st.integers(1, len(cuts) + 1))
    return num_layers, tuple(sorted(cuts)), num_stages


def smallest_largest_stage(num_layers: int, cuts: tuple[int, ...], num_stages: int) -> int:
    choices = combinations(cuts, num_stages - 1)
    return min(
        max(end - start for start, end in pairwise([0, *chosen, num_layers])) for chosen in choices
    )


@given(models())
def test_the_largest_stage_is_as_small_as_can_be(model: tuple[int, tuple[int, ...], int]) -> None:
    num_layers, cuts, num_stages = model
    ranges = even_split(num_layers, cuts, num_stages)
    assert len(ranges) == num_stages
    assert ranges[0].start == 0
    assert ranges[-1].end == num_layers
    assert all(before.end == after.start for before, after in pairwise(ranges))
    assert all(stage.start < stage.end for stage in ranges)
    assert {stage.start for stage in ranges[1:]} <= set(cuts)
    largest = max(stage.end - stage.start for stage in ranges)
    assert largest == smallest_largest_stage(num_layers, cuts, num_stages)


@given(models(), st.integers(1, 5))
def test_too_many_stages_names_the_most(
    model: tuple[int, tuple[int, ...], int], excess: int
) -> None:
    num_layers, cuts, _ = model
    most = len(cuts) + 1
    with pytest.raises(PlanError, match=rf"^{most + excess} stages .* at most {most}$"):
        even_split(num_layers, cuts, most + excess)


@pytest.mark.parametrize("num_stages", [0, -1])
def test_no_stages(num_stages: int) -> None:
    with pytest.raises(PlanError, match=f"^{num_stages} stages: ask for 1 or more"):
        even_split(4, (1, 2, 3), num_stages)


def test_the_rest_is_even_too() -> None:
    # Some stage must have 5 layers; the others share evenly instead of 1 and 5.
    assert even_split(11, (1, 3, 5, 6), 3) == [
        StageRange(0, 3),
        StageRange(3, 6),
        StageRange(6, 11),
    ]


@pytest.mark.parametrize(("start", "end", "words"), [(2, 5, "2-4"), (0, 1, "0-0")])
def test_a_range_is_written_as_people_place_it(start: int, end: int, words: str) -> None:
    assert str(StageRange(start, end)) == words
