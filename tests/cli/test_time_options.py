"""Times as they are written on the command line."""

from math import inf

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cli.options import time_limit


@pytest.mark.parametrize(("said", "seconds"), [("0", inf), ("0.5", 0.5), ("600", 600), (600, 600)])
def test_seconds(said: str | float, seconds: float) -> None:
    assert time_limit(said) == seconds


@pytest.mark.parametrize("said", ["", "nan", "inf", "-1", "5m", "1e999", "-0.1"])
def test_what_is_no_time_is_refused(said: str) -> None:
    with pytest.raises(typer.BadParameter, match="write seconds"):
        time_limit(said)


@given(st.text("0123456789.-+einfa ", max_size=8))
def test_any_text_is_a_time_or_refused(said: str) -> None:
    try:
        assert time_limit(said) > 0
    except typer.BadParameter:
        return
