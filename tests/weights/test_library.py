"""From a name to a model whose files are known."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from tbcluster.errors import CorruptModelError, FetchError, ModelNotFoundError
from tbcluster.model.source import check_folder
from tbcluster.weights import hub as hub_client
from tbcluster.weights.library import ModelSource, held_models, open_model_source
from tbcluster.weights.store import Store, headers_in, pieces_in
from tests.doubles.hub import HubServer
from tests.doubles.weights import MODEL


def test_of_a_repository_only_headers_and_small_files_are_fetched(
    hub: HubServer, repositories: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    source = open_model_source(MODEL, store, hub.url)
    assert not source.is_whole
    assert source.listing.source == source.listing.model == MODEL
    real = repositories / MODEL
    for file in source.listing.files:
        assert (source.folder / file.path).stat().st_size == file.size
        if not file.holds_weights:
            assert (source.folder / file.path).read_bytes() == (real / file.path).read_bytes()
    headers = headers_in(source.folder, source.listing)
    always = sum(piece.length for piece in pieces_in(source.folder, source.listing).always)
    assert sum(header.length for header in headers.values()) < always
    assert hub.sent_bytes == always < source.listing.total_bytes / 20
    assert check_folder(source.folder).config["model_type"] == "llama"


def test_the_second_time_nothing_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = open_model_source(MODEL, store, hub.url)
    hub.sent.clear()
    assert open_model_source(MODEL, store, hub.url) == first
    assert hub.sent_bytes == 0


def test_without_the_hub_what_is_known_will_do(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    first = open_model_source(MODEL, store, hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert open_model_source(MODEL, store, hub.url) == first
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE"):
        open_model_source(MODEL, Store(tmp_path / "other"), hub.url)


def test_of_a_commit_that_is_here_the_hub_is_not_asked(
    hub: HubServer, tmp_path: Path, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = "http://127.0.0.1:9"
    monkeypatch.setattr(hub_client, "LISTING_DELAYS_S", ())
    store = Store(tmp_path / "store")
    first = open_model_source(MODEL, store, hub.url)
    revision = first.listing.revision
    assert open_model_source(MODEL, store, nowhere, revision=revision) == first
    other = Store(tmp_path / "other")
    with pytest.raises(FetchError):
        open_model_source(MODEL, other, nowhere, revision=revision)
    assert open_model_source(MODEL, other, hub.url, revision="0" * 40).listing == first.listing
    cached = snapshot_download(MODEL, endpoint=hub.url, cache_dir=constants.HF_HUB_CACHE)
    third = Store(tmp_path / "third")
    whole = open_model_source(MODEL, third, nowhere, revision=revision)
    assert (whole.is_whole, whole.folder) == (True, Path(cached))


def test_the_hugging_face_cache_is_used(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = snapshot_download(MODEL, endpoint=hub.url, cache_dir=constants.HF_HUB_CACHE)
    hub.sent.clear()
    store = Store(tmp_path / "store")
    source = open_model_source(MODEL, store, hub.url)
    assert source.is_whole
    assert source.folder == Path(cached)
    assert hub.sent_bytes == 0
    assert not store.path.exists()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = open_model_source(MODEL, store, hub.url)
    assert offline.is_whole
    assert offline.folder == source.folder
    assert offline.listing.revision == source.listing.revision
    assert [held.listing.model for held in held_models(store)] == [MODEL]


def test_a_cache_that_lacks_a_file_is_not_whole(hub: HubServer, tmp_path: Path) -> None:
    cached = snapshot_download(MODEL, endpoint=hub.url, cache_dir=constants.HF_HUB_CACHE)
    next(Path(cached).glob("*.safetensors")).unlink()
    store = Store(tmp_path / "store")
    assert not open_model_source(MODEL, store, hub.url).is_whole
    assert not any(held.is_whole for held in held_models(store))


def test_a_folder_is_used_as_it_is(repositories: Path) -> None:
    folder = repositories / MODEL
    source = open_model_source(str(folder))
    assert source == ModelSource(source.listing, folder, True)
    assert source.listing.model == "tiny"
    assert source.listing.source == str(folder)
    assert all(file.sha256 or file.header_sha256 for file in source.listing.files)


def test_a_folder_that_changes_is_another_revision(repositories: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(repositories / MODEL, folder)
    before = open_model_source(str(folder)).listing
    assert before.revision == open_model_source(str(repositories / MODEL)).listing.revision
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert open_model_source(str(folder)).listing.revision != before.revision


@pytest.mark.parametrize("name", ["owner/none", "/no/folder", "none", "./none", "a/b/c"])
def test_what_does_not_exist_is_named(name: str, hub: HubServer) -> None:
    with pytest.raises(ModelNotFoundError, match=name):
        open_model_source(name, None, hub.url)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptModelError, match=r"config\.json"):
        open_model_source(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(CorruptModelError, match="truncated"):
        open_model_source(str(tmp_path))


def test_a_hub_that_is_not_there_is_named(
    online: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "LISTING_DELAYS_S", (0.01,))
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9"):
        open_model_source(MODEL, Store(tmp_path), "http://127.0.0.1:9")
