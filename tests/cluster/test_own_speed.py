"""The speed of a machine that belongs to no rack."""

from pathlib import Path

import pytest

from tbcluster.cluster.own_speed import speed_here
from tbcluster.cluster.speed_book import SpeedBook
from tbcluster.errors import ClusterClosedError
from tbcluster.planner.nodes import SpeedSource

KIND = "float32 256"


def test_it_is_measured_once(tmp_path: Path) -> None:
    book = SpeedBook(tmp_path / "state")
    assert speed_here(KIND, is_busy=True, book=book) is None
    speed = speed_here(KIND, book=book)
    assert speed is not None
    assert speed.source is SpeedSource.MEASURED
    # Nothing is measured of a machine that runs stages.
    assert speed_here(KIND, is_busy=True, book=SpeedBook(tmp_path / "state")) == speed
    assert speed_here("float32 512", is_busy=True, book=book) is None


def test_what_cannot_be_measured_is_not_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert speed_here("float7", book=SpeedBook(tmp_path)) is None
    assert "'float7'" in caplog.text
    assert "is assumed" in caplog.text


def test_whoever_gives_up_waits_no_longer(tmp_path: Path) -> None:
    with pytest.raises(ClusterClosedError, match="while this machine was measured"):
        speed_here(KIND, lambda: True, book=SpeedBook(tmp_path))
    assert not (tmp_path / "speeds.json").exists()
