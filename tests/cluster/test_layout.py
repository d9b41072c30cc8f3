"""Which node runs which layers: by hand, or evenly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.layout import (
    PlacedRange,
    Site,
    parse_place,
    placed_by_hand,
    split_over,
)
from tbcluster.core import StageRange
from tbcluster.errors import PlanError

SITES = [Site("head", 10), Site("mini2", 20), Site("mini3", 30)]
ALL_CUTS = tuple(range(1, 12))


def placed(node: str, start: int, end: int) -> PlacedRange:
    return PlacedRange(node, StageRange(start, end))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mini2=16-31", placed("mini2", 16, 32)),
        (" a.b-c=0-0 ", placed("a.b-c", 0, 1)),
    ],
)
def test_what_a_person_writes(text: str, expected: PlacedRange) -> None:
    assert parse_place(text) == expected


@pytest.mark.parametrize("text", ["", "mini2", "mini2=3", "mini2=3-", "=1-2", "a=b-c", "a=-1-2"])
def test_what_is_no_placement_is_named(text: str) -> None:
    with pytest.raises(PlanError, match="NODE=FIRST-LAST"):
        parse_place(text)


def test_the_last_layer_comes_last() -> None:
    with pytest.raises(PlanError, match="'a=5-4': the last layer comes before the first"):
        parse_place("a=5-4")


def test_by_hand_in_any_order() -> None:
    given_places = [placed("b", 8, 12), placed("a", 0, 8)]
    assert placed_by_hand(given_places, 12, ALL_CUTS) == [placed("a", 0, 8), placed("b", 8, 12)]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([placed("a", 0, 4), placed("b", 6, 12)], "layers 4-5 are in no stage: .* layers 0-11"),
        ([placed("a", 1, 12)], "layers 0-0 are in no stage"),
        (
            [placed("a", 0, 6), placed("b", 5, 12)],
            "layers 5-5 are in two stages, 0-5 and 5-11: each layer belongs to one",
        ),
        ([placed("a", 0, 12), placed("b", 2, 5)], "layers 2-4 are in two stages, 0-11 and 2-4"),
        ([placed("a", 0, 6), placed("b", 6, 11)], "layers 11-11 are in no stage"),
        (
            [placed("a", 0, 6), placed("b", 6, 13)],
            "layer 12 does not exist: the model has layers 0-11, and a stage was given 6-12",
        ),
        ([placed("a", 0, 12), placed("b", 14, 16)], "layers 14-15 do not exist"),
        ([], "layers 0-11 are in no stage"),
    ],
)
def test_by_hand_each_layer_is_placed_once(places: list[PlacedRange], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        placed_by_hand(places, 12, ALL_CUTS)


def test_by_hand_only_where_the_model_may_be_cut() -> None:
    with pytest.raises(PlanError, match=r"cannot be cut before layer 5; .* before: 4, 8"):
        placed_by_hand([placed("a", 0, 5), placed("b", 5, 12)], 12, (4, 8))


def test_one_stage_on_each_node() -> None:
    assert split_over(SITES, None, 12, ALL_CUTS) == [
        placed("head", 0, 4),
        placed("mini2", 4, 8),
        placed("mini3", 8, 12),
    ]


def test_fewer_stages_than_nodes_leave_the_last_ones_idle() -> None:
    assert [place.node for place in split_over(SITES, 2, 12, ALL_CUTS)] == ["head", "mini2"]
    assert [place.node for place in split_over(SITES, None, 12, (6,))] == ["head", "mini2"]


@given(st.integers(1, 5), st.integers(1, 12))
def test_neighbours_share_a_node_where_stages_outnumber_nodes(
    num_sites: int, num_stages: int
) -> None:
    sites = [Site(f"n{index}", 0) for index in range(num_sites)]
    places = split_over(sites, num_stages, 12, ALL_CUTS)
    numbers = [int(place.node[1:]) for place in places]
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(min(num_sites, num_stages)))
    counts = [numbers.count(number) for number in set(numbers)]
    assert max(counts) - min(counts) <= 1
    assert placed_by_hand(places, 12, ALL_CUTS) == places
