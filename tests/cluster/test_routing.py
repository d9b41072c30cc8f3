"""Which replica a request goes to."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.routing import (
    MAX_LEAD,
    MAX_LOAD_RATIO,
    MIN_KNOWN_TOKENS,
    Candidate,
    choose,
)


def replicas(*facts: dict[str, Any]) -> list[Candidate]:
    return [Candidate(index, **{"num_open": 0, **fact}) for index, fact in enumerate(facts)]


@pytest.mark.parametrize(
    ("facts", "chosen"),
    [
        # Who recovers answers sooner than who has too little.
        ([{"is_up": False, "is_starved": True}, {"is_up": False, "num_open": 9}], 1),
        ([{"is_up": False, "is_starved": True}, {"is_up": False, "has_failed": True}], 0),
        # The least loaded.
        ([{}, {}], 0),
        ([{"num_open": 1}, {}], 1),
        ([{"num_open": 3}, {"num_open": 2}, {"num_open": 2}], 1),
        # A faster one takes more.
        ([{"num_open": 1, "tokens_per_s": 30.0}, {"tokens_per_s": 10.0}], 0),
        ([{"num_open": 3, "tokens_per_s": 30.0}, {"tokens_per_s": 10.0}], 1),
        # The holder of the prefix, if it is long enough.
        ([{}, {"num_known": MIN_KNOWN_TOKENS}], 1),
        ([{}, {"num_known": MIN_KNOWN_TOKENS - 1}], 0),
        ([{"num_known": 100}, {"num_known": 101}], 1),
        ([{"num_known": 100, "num_open": 1}, {"num_known": 100}], 1),
        # A few requests more are no reason to compute it again, a queue is.
        ([{}, {"num_known": 100, "num_open": MAX_LEAD}], 1),
        ([{}, {"num_known": 100, "num_open": MAX_LEAD + 1}], 0),
        ([{"num_open": 20}, {"num_known": 100, "num_open": 30}], 1),
        ([{"num_open": 20}, {"num_known": 100, "num_open": 42}], 0),
        # Those that recover or have failed are passed over, whatever they hold.
        ([{}, {"num_known": 100, "is_up": False}], 0),
        ([{"num_open": 50}, {"is_up": False}], 0),
        ([{"has_failed": True, "is_up": False}, {"is_up": False}], 1),
        ([{"is_up": False}, {"has_failed": True, "is_up": False}], 0),
        ([{"is_up": False, "num_open": 1}, {"is_up": False}], 1),
        ([{"has_failed": True, "is_up": False}], 0),
        # Where it never fits it is refused, so not while it fits elsewhere.
        ([{"has_room": False, "num_known": 100}, {"num_open": 9}], 1),
        ([{"has_room": False}, {"is_up": False}], 1),
        ([{"has_room": False, "num_open": 1}, {"has_room": False}], 1),
    ],
)
def test_who_gets_it(facts: list[dict[str, Any]], chosen: int) -> None:
    assert choose(replicas(*facts)) == chosen


candidates = st.lists(
    st.builds(
        Candidate,
        index=st.just(0),
        num_open=st.integers(0, 100),
        tokens_per_s=st.floats(0.1, 100.0),
        num_known=st.integers(0, 2 * MIN_KNOWN_TOKENS),
        is_up=st.booleans(),
        is_starved=st.booleans(),
        has_failed=st.booleans(),
        has_room=st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@given(candidates)
def test_nobody_waits_far_longer_than_elsewhere(drawn: list[Candidate]) -> None:
    known = [replace(one, index=index) for index, one in enumerate(drawn)]
    chosen = known[choose(known)]
    for other in known:
        is_as_good = (
            other.is_up >= chosen.is_up
            and other.is_starved <= chosen.is_starved
            and other.has_failed <= chosen.has_failed
            and other.has_room >= chosen.has_room
        )
        if is_as_good and chosen.num_open - other.num_open > MAX_LEAD:
            assert chosen.load <= MAX_LOAD_RATIO * other.load
    if any(not one.has_failed for one in known):
        assert not chosen.has_failed
