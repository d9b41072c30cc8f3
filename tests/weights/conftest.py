"""A small model on a hub, and this process not offline."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tbcluster.weights.library import ModelSource, open_model_source
from tbcluster.weights.store import Store
from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.hub import HubServer
from tests.doubles.weights import MODEL


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_llama(
        folder / MODEL,
        LlamaSizes(num_hidden_layers=6, hidden_size=128, intermediate_size=512),
        num_shards=2,
        with_tokenizer=True,
    )
    return folder


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub may be asked in this process, and its cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))


@pytest.fixture
def hub(repositories: Path, online: None) -> Iterator[HubServer]:
    with HubServer(repositories) as server:
        yield server


@pytest.fixture
def source(hub: HubServer, tmp_path: Path) -> ModelSource:
    """Opened with a store of its own; the hub's counts begin after it."""
    opened = open_model_source(MODEL, Store(tmp_path / "head"), hub.url)
    hub.sent.clear()
    return opened
