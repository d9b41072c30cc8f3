"""What was recorded is there after a restart; a file that cannot be trusted costs only itself."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import TokenId
from tbcluster.engine.prefix_index import PrefixEntry
from tbcluster.engine.saved_prefixes import SavedPrefixes, new_name
from tbcluster.errors import PrefixFolderError

NAME = "0123456789abcdef" * 2
FINGERPRINT = "model and cut"

Saved = list[tuple[tuple[TokenId, ...], str | None]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "made" / "prefixes"


@pytest.fixture
def saved(folder: Path) -> Iterator[SavedPrefixes]:
    with closing(SavedPrefixes(folder, FINGERPRINT, max_bytes=100)) as saved:
        yield saved


def read_again(folder: Path, fingerprint: str = FINGERPRINT) -> Saved:
    with closing(SavedPrefixes(folder, fingerprint, max_bytes=100)) as saved:
        assert all(entry.cache_id is None for entry in saved.entries())
        return [(entry.tokens, entry.saved_as) for entry in saved.entries()]


def prefix(*tokens: TokenId) -> PrefixEntry:
    return PrefixEntry(tokens, cache_id=1, saved_as=new_name())


def file_in(folder: Path) -> Path:
    return folder / "prefixes"


def signed(contents: object) -> bytes:
    """A file with a right checksum."""
    payload = msgspec.msgpack.encode(contents)
    return blake2b(payload, digest_size=16).digest() + payload


def contents(**changes: object) -> dict[str, object]:
    known = {"version": 1, "fingerprint": FINGERPRINT, "prefixes": [[NAME, 5, [1, 2]]]}
    return {**known, **changes}


def test_names_are_32_hexadecimal_characters() -> None:
    names = {new_name() for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in names)


def test_nothing_is_saved_at_first(saved: SavedPrefixes, caplog: pytest.LogCaptureFixture) -> None:
    assert saved.entries() == []
    assert saved.names == ()
    assert (saved.num_bytes, saved.max_bytes) == (0, 100)
    assert saved.num_bytes_of(NAME) == 0
    assert not caplog.records


def test_the_record_survives_a_restart(saved: SavedPrefixes, folder: Path) -> None:
    first, second = prefix(1, 2, 3), prefix(2**32 - 1)
    saved.record(first, 10)
    saved.record(second, 20)
    assert saved.num_bytes == 30
    saved.close()
    assert read_again(folder) == [(e.tokens, e.saved_as) for e in (first, second)]
    with closing(SavedPrefixes(folder, FINGERPRINT, 1)) as again:
        assert again.num_bytes == 30


def test_entries_are_the_objects_recorded(saved: SavedPrefixes) -> None:
    entry = prefix(1)
    saved.record(entry, 10)
    assert saved.entries() == [entry]
    assert saved.names == (entry.saved_as,)
    assert saved.num_bytes_of(entry.saved_as or "") == 10


def test_recorded_again_is_newest(saved: SavedPrefixes, folder: Path) -> None:
    first, second = prefix(1), prefix(2)
    for entry in (first, second, first):
        saved.record(entry, 10)
    assert saved.num_bytes == 20
    assert saved.entries() == [second, first]
    saved.close()
    assert [tokens for tokens, _ in read_again(folder)] == [(2,), (1,)]


def test_forgotten_is_gone(saved: SavedPrefixes, folder: Path) -> None:
    first, second, third = prefix(1), prefix(2), prefix(3)
    for entry in (first, second, third):
        saved.record(entry, 10)
    saved.forget(entry.saved_as or "" for entry in (first, third))
    saved.forget([NAME])
    assert saved.num_bytes == 10
    saved.close()
    assert read_again(folder) == [((2,), second.saved_as)]


def test_changes_are_written_when_asked(saved: SavedPrefixes, folder: Path) -> None:
    entry = prefix(1)
    saved.record(entry, 10)
    saved.forget([NAME])
    assert not file_in(folder).exists()
    saved.flush()
    written = file_in(folder).read_bytes()
    saved.forget(saved.names)
    assert file_in(folder).read_bytes() == written
    saved.flush()
    assert file_in(folder).read_bytes() != written


def test_nothing_is_written_without_a_change(saved: SavedPrefixes, folder: Path) -> None:
    saved.flush()
    saved.forget([NAME])
    saved.flush()
    assert not file_in(folder).exists()
    saved.record(prefix(1), 10)
    saved.flush()
    file_in(folder).unlink()
    saved.flush()
    saved.close()
    assert not file_in(folder).exists()


@pytest.mark.parametrize(
    "name", [None, "", NAME + "0", NAME + "\n", NAME.upper(), "../" * 10 + "aa"]
)
def test_other_names_are_refused(saved: SavedPrefixes, name: str | None) -> None:
    with pytest.raises(ValueError, match="name"):
        saved.record(PrefixEntry((1,), 1, name), 10)
    assert saved.entries() == []


def test_only_the_owner_can_read_it(folder: Path) -> None:
    folder.mkdir(parents=True, mode=0o755)
    left_over = folder / "prefixes.tmp"
    left_over.touch(mode=0o666)
    with closing(SavedPrefixes(folder, FINGERPRINT, 100)) as saved:
        saved.record(prefix(1), 10)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "prefixes": 0o600,
        "lock": 0o600,
    }


def flip_a_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda _: b"", "damaged"),
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[:7], "damaged"),
        (flip_a_bit, "damaged"),
        (lambda data: data + b"0", "damaged"),
        (lambda _: signed(contents(version=2)), "format is 2"),
        (lambda _: signed(contents(fingerprint="other")), "another model"),
        (lambda _: signed(contents(prefixes=[["../../../etc", 5, [1]]])), "not a list of prefixes"),
        (lambda _: signed(contents(prefixes=[[NAME + "\n", 5, [1]]])), "not a list of prefixes"),
        (lambda _: signed(contents(prefixes=[[NAME, 5, [-1]]])), "not a list of prefixes"),
        (lambda _: signed(contents(prefixes=[[NAME, -5, [1]]])), "not a list of prefixes"),
        (lambda _: signed([]), "not a list of prefixes"),
    ],
)
def test_a_bad_file_means_starting_without(
    folder: Path,
    damage: Callable[[bytes], bytes],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder.mkdir(parents=True)
    file_in(folder).write_bytes(signed(contents()))
    assert read_again(folder) == [((1, 2), NAME)]
    file_in(folder).write_bytes(damage(file_in(folder).read_bytes()))
    with closing(SavedPrefixes(folder, FINGERPRINT, 100)) as saved:
        assert (saved.entries(), saved.num_bytes) == ([], 0)
        (warning,) = caplog.records
        assert warning.levelno == logging.WARNING
        assert reason in warning.getMessage()
        saved.record(prefix(7), 10)
    assert [tokens for tokens, _ in read_again(folder)] == [(7,)]


@given(
    data=st.binary()
    | st.recursive(st.integers(0, 2**63) | st.text(), st.lists, max_leaves=9).map(signed)
)
def test_any_bytes_mean_starting_without(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    file_in(folder).write_bytes(data)
    assert read_again(folder) == []


def test_an_unreadable_file_means_starting_without(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file_in(folder).mkdir(parents=True)
    with closing(SavedPrefixes(folder, FINGERPRINT, 100)) as saved:
        assert saved.entries() == []
        assert len(caplog.records) == 1
        # Nor can it be written: what is recorded holds until the end of this process.
        saved.record(prefix(1), 10)
        saved.flush()
        assert [entry.tokens for entry in saved.entries()] == [(1,)]
        assert "could not be written" in caplog.records[1].getMessage()


def test_a_write_that_fails_leaves_the_old_file(saved: SavedPrefixes, folder: Path) -> None:
    saved.record(prefix(1), 10)
    saved.flush()
    (folder / "prefixes.tmp").mkdir()
    saved.record(prefix(2), 10)
    saved.flush()
    (folder / "prefixes.tmp").rmdir()
    written = file_in(folder).read_bytes()
    saved.flush()
    assert file_in(folder).read_bytes() == written
    # The next change takes with it what could not be written.
    saved.record(prefix(3), 10)
    saved.close()
    assert [tokens for tokens, _ in read_again(folder)] == [(1,), (2,), (3,)]


def test_two_coordinators_cannot_share_a_folder(saved: SavedPrefixes, folder: Path) -> None:
    with pytest.raises(PrefixFolderError, match="another tbcluster"):
        SavedPrefixes(folder, "other", 100)
    saved.close()
    saved.close()
    SavedPrefixes(folder, "other", 100).close()


def test_nothing_is_written_once_closed(saved: SavedPrefixes, folder: Path) -> None:
    saved.close()
    saved.record(prefix(1), 10)
    saved.flush()
    saved.close()
    assert read_again(folder) == []


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PrefixFolderError, match="cannot be used"):
        SavedPrefixes(tmp_path / "file" / "folder", FINGERPRINT, 100)
