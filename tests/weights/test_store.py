"""What may be kept in a store, and where."""

import threading
from pathlib import Path

import pytest

from tbcluster.checkpoint import ListedFile, Listing, Span
from tbcluster.errors import DiskFullError, FetchError
from tbcluster.weights.ledger import Lies, Piece
from tbcluster.weights.room import check_room, keeps_holes
from tbcluster.weights.shelf import StoreShelf
from tbcluster.weights.store import Store, folder_name

FILES = (ListedFile("config.json", 10), ListedFile("sub/model.safetensors", 1000))
LISTING = Listing("owner/model", "abc", "owner/model", FILES)


@pytest.mark.parametrize("model", ["", ".hidden", "..", "../x", "a\\b", "a\0b", "a\nb"])
def test_names_that_lead_elsewhere_are_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no model's name"):
        Store(tmp_path).revision(model, "abc")


@pytest.mark.parametrize("revision", ["", "..", ".", "a/b", "-", "é"])
def test_revisions_that_lead_elsewhere_are_refused(revision: str, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="no revision"):
        Store(tmp_path).revision("owner/model", revision)


@pytest.mark.parametrize(
    "path", ["", "/etc/x", "../x", "a/../b", "a//b", ".x", "a/.b", "x.part", "a\\b", "a\0"]
)
def test_files_that_lead_elsewhere_are_refused(path: str, tmp_path: Path) -> None:
    listing = Listing("owner/model", "abc", "", (ListedFile(path, 1),))
    revision = Store(tmp_path).revision("owner/model", "abc")
    with pytest.raises(FetchError, match="no name"), revision.locked(listing):
        pass
    assert not list(tmp_path.iterdir())


def test_an_id_is_one_folder() -> None:
    assert folder_name("owner/model") == "owner--model"


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    first = Store(tmp_path).revision("owner/model", "abc")
    second = Store(tmp_path).revision("owner/model", "abc")
    order: list[str] = []

    def write() -> None:
        with second.locked(LISTING):
            order.append("second")

    with first.locked(LISTING) as is_ours:
        assert is_ours
        with second.locked(LISTING, waits=False) as is_free:
            assert not is_free
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert second.listing() == LISTING


def test_a_part_takes_no_room_and_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    revision = Store(tmp_path).revision("owner/model", "abc")
    with revision.locked(LISTING):
        part = revision.make_part(FILES[1])
        assert (part.stat().st_size, part.stat().st_blocks) == (1000, 0)
        assert revision.find(FILES[1].path) == part
        revision.finish(FILES[1].path)
        assert revision.find(FILES[1].path) == revision.path / "sub/model.safetensors"
        assert revision.make_part(FILES[1]) == part
        assert not revision.whole(FILES[1].path).exists()


def test_others_see_what_the_ledger_says_and_nothing_else(tmp_path: Path) -> None:
    shelf = StoreShelf(tmp_path / "store")
    revision = Store(tmp_path / "store").revision("owner/model", "abc")
    assert shelf.find("owner/model", "abc", "config.json") is None
    assert shelf.ledger("../..", "abc") is None
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_bytes(b"0123456789")
    with revision.locked(LISTING):
        revision.make_part(FILES[1])
        pieces = [Piece(FILES[1].path, start, 100, "x") for start in (0, 100, 300)]
        revision.ledger.append(pieces)
        held = shelf.find("owner/model", "abc", FILES[1].path)
        assert held is not None
        assert held.ranges == ((0, 200), (300, 400))
        mtime_ns = elsewhere.stat().st_mtime_ns
        revision.ledger.append([Lies("config.json", str(elsewhere), 10, mtime_ns)])
    found = shelf.find("owner/model", "abc", "config.json")
    assert found is not None
    assert (found.path, found.ranges) == (elsewhere, ((0, 10),))
    elsewhere.write_bytes(b"9876543210!")
    assert shelf.find("owner/model", "abc", "config.json") is None
    assert shelf.find("owner/model", "abc", "other.json") is None
    ledger = shelf.ledger("owner/model", "abc")
    assert ledger is not None
    assert ledger.path == revision.own / "ledger"
    assert ledger.holds(0, ledger.path.stat().st_size)


def test_room_is_asked_for_before_it_is_needed(tmp_path: Path) -> None:
    revision = Store(tmp_path).revision("owner/model", "abc")
    with revision.locked(LISTING):
        assert keeps_holes(tmp_path)
        check_room(revision, LISTING, [Span("config.json", 0, 10)])
        check_room(revision, LISTING, [], 1 << 60)
        with pytest.raises(DiskFullError, match=r"make room for .*TBCLUSTER_HOME"):
            check_room(revision, LISTING, [Span("config.json", 0, 10)], 1 << 60)
