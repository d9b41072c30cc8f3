"""Which node runs which layers, as a person writes it."""

import pytest

from tbcluster.cluster.layout import PlacedRange, layout_of, parse_place
from tbcluster.core import StageRange
from tbcluster.errors import PlanError


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
    assert layout_of([placed("b", 8, 12), placed("a", 0, 8)]) == [
        [("a", StageRange(0, 8)), ("b", StageRange(8, 12))]
    ]


def test_nothing_by_hand() -> None:
    assert layout_of([]) == []
