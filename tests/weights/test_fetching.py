"""Fetches as processes of their own: what they read from the hub, keep, verify and refuse."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from huggingface_hub import constants, snapshot_download

from tbcluster.checkpoint import Span, num_bytes
from tbcluster.errors import CorruptModelError, DiskFullError, FetchError
from tbcluster.model.source import check_folder
from tbcluster.weights import checking
from tbcluster.weights import hub as hub_client
from tbcluster.weights.checking import verify
from tbcluster.weights.fetching import fetch
from tbcluster.weights.library import ModelSource, open_model_source
from tbcluster.weights.store import Revision, Store
from tbcluster.wire.errands import Checking, Fetched, Fetching
from tests.doubles.hub import HubServer
from tests.doubles.waiting import wait_until
from tests.doubles.weights import MODEL, Errand, fetch_spec, layer_spans, whole

SPARSE_LAYERS = (1, 4)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def revision_of(source: ModelSource, store: Path) -> Revision:
    revision = Store(store).revision(source.listing.model, source.listing.revision)
    revision.ledger.refresh()
    return revision


def assert_is_same(folder: Path, real: Path, spans: tuple[Span, ...]) -> None:
    for span in spans:
        with (folder / span.file).open("rb") as mine, (real / span.file).open("rb") as original:
            mine.seek(span.offset)
            original.seek(span.offset)
            assert mine.read(span.length) == original.read(span.length), span


def test_only_what_is_needed_is_read(
    hub: HubServer, source: ModelSource, store: Path, repositories: Path
) -> None:
    spans = layer_spans(source, *SPARSE_LAYERS)
    fetched = fetch(fetch_spec(source, store, hub.url, spans))
    assert hub.sent_bytes == num_bytes(spans) < source.listing.total_bytes * 0.4
    assert fetched == Fetched(fetched.folder, 0, num_bytes(spans), 0)
    assert_is_same(Path(fetched.folder), repositories / MODEL, spans)
    view = Path(fetched.folder)
    assert check_folder(view).path == view
    arrays = mx.load(str(next(view.glob("model-00001*"))))
    expected = mx.load(str(next((repositories / MODEL).glob("model-00001*"))))
    name = "model.layers.1.mlp.down_proj.weight"
    assert mx.array_equal(arrays[name], expected[name])
    parts = list(revision_of(source, store).path.glob("*.part"))
    assert len(parts) == 2
    on_disk = sum(part.stat().st_blocks * 512 for part in parts)
    assert on_disk < sum(part.stat().st_size for part in parts) / 2
    assert store.stat().st_mode & 0o077 == 0


def test_what_is_there_is_not_fetched_again(
    hub: HubServer, source: ModelSource, store: Path
) -> None:
    first = fetch(fetch_spec(source, store, hub.url, layer_spans(source, 0, 1)))
    hub.sent.clear()
    again = fetch(fetch_spec(source, store, hub.url, layer_spans(source, 0, 1)))
    assert again.folder == first.folder
    assert (again.held_bytes, again.hub_bytes) == (first.hub_bytes, 0)
    moved = fetch(fetch_spec(source, store, hub.url, layer_spans(source, 1, 2)))
    only_new = num_bytes(set(layer_spans(source, 2)) - set(layer_spans(source, 1)))
    assert moved.hub_bytes == hub.sent_bytes == only_new


def test_a_partial_folder_never_passes_for_a_model(
    hub: HubServer, source: ModelSource, store: Path
) -> None:
    fetch(fetch_spec(source, store, hub.url, layer_spans(source, 0)))
    with pytest.raises(CorruptModelError, match="lacks 2 of 2 weight files"):
        check_folder(revision_of(source, store).path)


def test_a_whole_model_lies_in_the_store_under_its_own_names(
    hub: HubServer, source: ModelSource, store: Path, repositories: Path
) -> None:
    part = fetch(fetch_spec(source, store, hub.url, layer_spans(source, 0)))
    fetched = fetch(fetch_spec(source, store, hub.url))
    folder = Path(fetched.folder)
    assert folder == revision_of(source, store).path
    assert_is_same(folder, repositories / MODEL, whole(source))
    assert not list(folder.glob("*.part"))
    # What was made for less still leads to the same files.
    assert_is_same(Path(part.folder), repositories / MODEL, layer_spans(source, 0))
    assert open_model_source(MODEL, Store(store), hub.url).is_whole


def test_a_killed_fetch_goes_on_where_it_was(
    hub: HubServer, source: ModelSource, store: Path, repositories: Path
) -> None:
    hub.mischief.bytes_per_s = 1_500_000
    errand = Errand(fetch_spec(source, store, hub.url))
    third = source.listing.total_bytes // 3

    def held() -> int:
        revision = revision_of(source, store)
        return sum(num_bytes(revision.spans(file)) for file in source.listing.files)

    wait_until(lambda: held() > third, "a third is there")
    errand.kill()
    hub.mischief.bytes_per_s = 0
    before = held()
    again = fetch(fetch_spec(source, store, hub.url))
    assert again.held_bytes == before
    assert again.hub_bytes == source.listing.total_bytes - before
    assert_is_same(Path(again.folder), repositories / MODEL, whole(source))


def test_progress_is_reported(hub: HubServer, source: ModelSource, store: Path) -> None:
    hub.mischief.bytes_per_s = 4_000_000
    reports: list[Fetching | Checking] = []
    fetched = fetch(fetch_spec(source, store, hub.url), reports.append)
    steps = [report for report in reports if isinstance(report, Fetching)]
    assert len(steps) >= 2
    assert [step.done_bytes for step in steps] == sorted(step.done_bytes for step in steps)
    assert steps[-1].done_bytes == steps[-1].total_bytes == fetched.hub_bytes


def test_what_is_hashed_again_is_told(
    hub: HubServer, source: ModelSource, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash, of which the times of the files tell nothing."""
    fetch(fetch_spec(source, store, hub.url))
    for file in source.listing.files:
        os.utime(revision_of(source, store).whole(file.path))
    monkeypatch.setattr(checking, "REPORT_S", 0.0)
    reports: list[Fetching | Checking] = []
    assert fetch(fetch_spec(source, store, hub.url), reports.append).hub_bytes == 0
    total = source.listing.total_bytes
    assert Checking(total, total) in reports


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_flipped_byte_is_found_and_fetched_again(
    is_whole: bool, hub: HubServer, source: ModelSource, store: Path, repositories: Path
) -> None:
    spans = whole(source) if is_whole else layer_spans(source, *SPARSE_LAYERS)
    fetch(fetch_spec(source, store, hub.url, spans))
    piece = layer_spans(source, SPARSE_LAYERS[0])[-1]
    path = revision_of(source, store).find(piece.file)
    assert path is not None
    flip(path, piece.offset + 1)
    hub.sent.clear()
    again = fetch(fetch_spec(source, store, hub.url, spans))
    assert again.hub_bytes == hub.sent_bytes == piece.length
    assert_is_same(Path(again.folder), repositories / MODEL, spans)


def test_verify_finds_what_no_time_tells(hub: HubServer, source: ModelSource, store: Path) -> None:
    fetch(fetch_spec(source, store, hub.url))
    revision = revision_of(source, store)
    piece = layer_spans(source, 2)[-1]
    path = revision.whole(piece.file)
    status = path.stat()
    flip(path, piece.offset)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fetch(fetch_spec(source, store, hub.url)).hub_bytes == 0
    with revision.locked(source.listing):
        assert verify(revision, source.listing.files) == (piece,)
    assert not path.exists()
    assert fetch(fetch_spec(source, store, hub.url)).hub_bytes == piece.length


def test_what_the_hub_sends_wrong_is_found_by_the_whole_files_hash(
    hub: HubServer, source: ModelSource, store: Path, repositories: Path
) -> None:
    file = next(file for file in source.listing.files if file.holds_weights)
    hub.mischief.corrupt[file.path] = file.size - 100
    fetched = fetch(fetch_spec(source, store, hub.url))
    assert hub.sent_of(file.path) == 2 * file.size
    assert_is_same(Path(fetched.folder), repositories / MODEL, whole(source))


def test_connections_that_are_cut_are_made_again(
    hub: HubServer,
    source: ModelSource,
    store: Path,
    repositories: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_client, "RETRY_DELAYS_S", (0.01,) * 5)
    hub.mischief.cuts = 3
    hub.mischief.statuses = [503, 429, 500]
    fetched = fetch(fetch_spec(source, store, hub.url))
    assert hub.mischief.cuts == 0
    assert fetched.hub_bytes == source.listing.total_bytes
    assert_is_same(Path(fetched.folder), repositories / MODEL, whole(source))


def test_a_shared_folder_is_used_in_place(
    hub: HubServer, source: ModelSource, store: Path, repositories: Path
) -> None:
    shared = repositories / "owner"
    spec = fetch_spec(source, store, hub.url, folders=[str(shared)])
    fetched = fetch(spec)
    weights = [file for file in source.listing.files if file.holds_weights]
    # The hub tells no hash of small files, so that they are not trusted.
    small = source.listing.total_bytes - sum(file.size for file in weights)
    assert fetched.hub_bytes == hub.sent_bytes == small
    for file in weights:
        assert (Path(fetched.folder) / file.path).resolve() == shared / "tiny" / file.path
    assert_is_same(Path(fetched.folder), repositories / MODEL, whole(source))


def test_a_shared_folder_with_another_model_is_not_used(
    hub: HubServer, source: ModelSource, store: Path, repositories: Path, tmp_path: Path
) -> None:
    shutil.copytree(repositories / MODEL, tmp_path / "shared" / "tiny")
    files = [file for file in source.listing.files if file.holds_weights]
    for file in files:
        flip(tmp_path / "shared" / "tiny" / file.path, 20)  # in the header
    spec = fetch_spec(source, store, hub.url, folders=[str(tmp_path / "shared")])
    assert fetch(spec).hub_bytes == source.listing.total_bytes


def test_the_folder_of_the_head_node_is_used_where_it_is_there_too(
    repositories: Path, store: Path
) -> None:
    source = open_model_source(str(repositories / MODEL))
    fetched = fetch(fetch_spec(source, store, "http://127.0.0.1:9"))
    assert Path(fetched.folder) == repositories / MODEL
    assert fetched.held_bytes == source.listing.total_bytes


def test_the_hugging_face_cache_is_used(hub: HubServer, source: ModelSource, store: Path) -> None:
    cached = snapshot_download(MODEL, endpoint=hub.url, cache_dir=constants.HF_HUB_CACHE)
    hub.sent.clear()
    spec = fetch_spec(source, store, hub.url)
    fetched = fetch(spec)
    assert fetched.folder == cached
    assert hub.sent_bytes == 0


def test_two_at_once_share_the_work(hub: HubServer, source: ModelSource, store: Path) -> None:
    hub.mischief.bytes_per_s = 3_000_000
    other = Errand(fetch_spec(source, store, hub.url))
    wait_until(lambda: hub.sent_bytes > 0, "one fetches")
    second = fetch(fetch_spec(source, store, hub.url))
    assert second.hub_bytes == 0
    assert other.fetched().hub_bytes == hub.sent_bytes == source.listing.total_bytes
    assert other.fetched().folder == second.folder == str(revision_of(source, store).path)


def test_it_ends_with_its_parent(hub: HubServer, source: ModelSource, store: Path) -> None:
    hub.mischief.bytes_per_s = 50_000
    errand = Errand(fetch_spec(source, store, hub.url))
    wait_until(lambda: bool(errand.reports), "it fetches")
    assert errand.process.stdin is not None
    errand.process.stdin.close()
    assert errand.process.wait(10) == 0


def test_offline_is_said(
    hub: HubServer, source: ModelSource, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE"):
        fetch(fetch_spec(source, store, hub.url))


def test_a_disk_that_is_too_small_is_told_before_the_first_byte(
    hub: HubServer, source: ModelSource, small_disk: Path
) -> None:
    with pytest.raises(DiskFullError, match=rf"{small_disk}.* MB free.*make room for"):
        fetch(fetch_spec(source, small_disk / "store", hub.url))
    # Headers alone.
    assert hub.sent_bytes < source.listing.total_bytes / 20


def test_a_disk_that_fills_up_leaves_usable_pieces(
    hub: HubServer, source: ModelSource, large_disk: Path, repositories: Path
) -> None:
    hub.mischief.bytes_per_s = 300_000
    store = large_disk / "store"
    errand = Errand(fetch_spec(source, store, hub.url))
    wait_until(lambda: bool(errand.reports), "it fetches")
    filler = large_disk / "filler"
    fill(filler)
    failed = errand.failed()
    assert failed.kind == "DiskFullError"
    assert "make room" in failed.message
    revision = revision_of(source, store)
    held = sum(num_bytes(revision.spans(file)) for file in source.listing.files)
    filler.unlink()
    hub.mischief.bytes_per_s = 0
    again = fetch(fetch_spec(source, store, hub.url))
    assert 0 < again.held_bytes == held
    assert_is_same(Path(again.folder), repositories / MODEL, whole(source))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path, "8m")


@pytest.fixture
def large_disk(tmp_path: Path) -> Iterator[Path]:
    """Enough for the model and what has to stay free."""
    yield from mounted(tmp_path, "1060m")


def mounted(tmp_path: Path, size: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting takes root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(path: Path) -> None:
    """Take all the room that is left, while others take some of it too."""
    with path.open("wb") as file:
        size = 1 << 30
        while size >= 4096:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
            except OSError:
                size //= 2


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))
