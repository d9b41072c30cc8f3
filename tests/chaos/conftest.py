"""Clusters that the tests of this folder share: whatever a test does to one, it leaves it well."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.scene import ProxiedScene, Scene, proxied_scene, watched_scene
from tests.doubles.checkpoints import write_endless_llama


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose answers end only if they are ended."""
    return write_endless_llama(tmp_path_factory.mktemp("endless") / "model")


@pytest.fixture(scope="session")
def stage(model: Path) -> Iterator[Scene]:
    """Three stages; all that is said and all that crosses can be waited for."""
    with watched_scene(model) as made:
        yield made


@pytest.fixture(scope="session")
def proxied(model: Path) -> Iterator[ProxiedScene]:
    """Two stages, with sealed connections and a TCP proxy on each."""
    with proxied_scene(model) as made:
        yield made
