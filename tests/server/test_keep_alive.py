"""How long a model is to stay, as Ollama's clients say it."""

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from tbcluster.server.ollama.keep_alive import seconds


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, None),
        (0, 0.0),
        (90, 90.0),
        (0.5, 0.5),
        (-1, inf),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("300ms", 0.3),
        ("0", 0.0),
        ("0s", 0.0),
        ("-1m", inf),
        ("+2s", 2.0),
        (1e12, inf),
        (10**400, inf),
        ("9" * 39 + "h", inf),
    ],
)
def test_durations(said: Any, expected: float | None) -> None:
    assert seconds(said) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("said", ["", "5", "5 m", "m", "1d", "5m!", "1" * 50 + "s", True, [], {}])
def test_what_is_no_duration_is_refused_by_name(said: Any) -> None:
    with pytest.raises(PydanticCustomError, match="keep_alive"):
        seconds(said)


@given(st.text("0123456789.hmsnu-+µ", max_size=12))
def test_any_text_is_a_duration_or_refused(said: str) -> None:
    try:
        found = seconds(said)
    except PydanticCustomError:
        return
    assert found is not None
    assert found >= 0
