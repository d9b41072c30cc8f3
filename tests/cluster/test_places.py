"""Places on this machine: the folder of their sockets."""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbcluster.cluster.places import COORDINATOR, MAX_SOCKET_PATH, LocalPlaces, make_run_dir
from tbcluster.transport.zeromq import ZmqReceiver


@pytest.fixture
def short_folder() -> Iterator[Path]:
    # Not pytest's tmp_path, which is longer than some of the lengths to try.
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.parametrize("length", [40, 60, 61, 62, 63, 90, 150])
def test_sockets_can_be_bound_however_long_the_temporary_folder(
    length: int, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = short_folder / ("x" * (length - len(str(short_folder)) - 1))
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    places = LocalPlaces()
    try:
        for endpoint in (places.route(COORDINATOR, 11, 0).endpoint, places.results):
            path = endpoint.removeprefix("ipc://")
            assert len(path) <= MAX_SOCKET_PATH
            ZmqReceiver(endpoint).close()
    finally:
        places.close()
    assert not Path(path).parent.exists()


def test_the_folder_is_private_and_new() -> None:
    first, second = make_run_dir(), make_run_dir()
    assert first != second
    for folder in (first, second):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.rmdir()
