"""Files that are their owner's alone."""

import os
import threading
from pathlib import Path

import pytest

from tbcluster.errors import TrustError
from tbcluster.hardware.private_file import PrivateFile


@pytest.fixture
def file(tmp_path: Path) -> PrivateFile:
    return PrivateFile(tmp_path / "state" / "secret.json", TrustError)


def write(file: PrivateFile, content: bytes) -> None:
    with file.locked():
        file.replace(content)


def test_the_file_and_its_folder_are_their_owners_alone(file: PrivateFile) -> None:
    assert file.read() is None
    assert file.version() is None
    old = os.umask(0)
    try:
        write(file, b"one")
    finally:
        os.umask(old)
    assert file.read() == b"one"
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in file.path.parent.iterdir()} == {0o600}


def test_a_change_is_seen_by_the_version(file: PrivateFile) -> None:
    write(file, b"one")
    first = file.version()
    assert file.version() == first
    write(file, b"two")
    assert file.version() != first
    second = file.version()
    file.path.chmod(0o644)
    assert file.version() != second


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o611])
def test_what_others_can_use_is_refused(file: PrivateFile, mode: int) -> None:
    write(file, b"one")
    file.path.chmod(mode)
    with pytest.raises(TrustError, match="chmod 600"):
        file.read()


def test_a_failed_write_leaves_what_was_there(file: PrivateFile, tmp_path: Path) -> None:
    write(file, b"one")
    with file.locked(), pytest.raises(TypeError):
        file.replace("no bytes")  # type: ignore[arg-type]
    assert file.read() == b"one"
    assert sorted(path.name for path in file.path.parent.iterdir()) == [
        "secret.json",
        "secret.json.lock",
    ]
    (tmp_path / "file").touch()
    below_a_file = PrivateFile(tmp_path / "file" / "secret.json", TrustError)
    with pytest.raises(TrustError, match="cannot be written"), below_a_file.locked():
        pass
    with pytest.raises(TrustError, match="cannot be read"):
        below_a_file.read()
    directory = PrivateFile(tmp_path, TrustError)
    with pytest.raises(TrustError, match="cannot be read"):
        directory.read()


def test_a_lock_that_points_elsewhere_is_not_followed(file: PrivateFile, tmp_path: Path) -> None:
    file.path.parent.mkdir()
    target = tmp_path / "elsewhere"
    Path(f"{file.path}.lock").symlink_to(target)
    with pytest.raises(TrustError), file.locked():
        pass
    assert not target.exists()


def test_no_change_is_lost_between_writers(file: PrivateFile) -> None:
    write(file, b"0")

    def count() -> None:
        for _ in range(25):
            with file.locked():
                file.replace(str(int(file.read() or b"") + 1).encode())

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read() == b"100"
