"""The folder of a coordinator's sockets: one at a time, whatever became of the one before."""

from pathlib import Path

import pytest

from tbcluster.cluster.rack.run_folder import RunFolder
from tbcluster.errors import RackError


def test_it_is_there_until_it_is_closed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.close()
    assert not folder.path.exists()
    assert not list(tmp_path.iterdir())


def test_that_of_one_that_was_killed_is_removed(tmp_path: Path) -> None:
    left = RunFolder(tmp_path)
    (left.path / "results").touch()
    folder = RunFolder(tmp_path)
    assert not left.path.exists()
    assert folder.path.is_dir()
    folder.close()
    # What somebody has removed meanwhile is no matter.
    left = RunFolder(tmp_path)
    left.path.rmdir()
    RunFolder(tmp_path).close()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(RackError, match="run cannot be written"):
        RunFolder(tmp_path)
