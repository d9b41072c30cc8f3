"""Files of the Hugging Face cache."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from tbcluster.weights.hf_cache import drop, snapshot

MODEL, COMMIT, FILE = "owner/toy", "0" * 40, "model.safetensors"


@pytest.fixture
def link(online: None) -> Path:
    """A file as the cache has it."""
    blob = Path(constants.HF_HUB_CACHE, "models--owner--toy", "blobs", "5eed")
    blob.parent.mkdir(parents=True)
    blob.write_text("bad")
    link = snapshot(MODEL, COMMIT) / FILE
    link.parent.mkdir(parents=True)
    link.symlink_to("../../blobs/5eed")
    return link


def test_a_file_goes_with_its_content(link: Path) -> None:
    blob = link.resolve()
    assert drop(MODEL, COMMIT, FILE)
    assert not link.is_symlink()
    assert not blob.exists()


def test_what_lies_outside_of_the_cache_stays(link: Path, tmp_path: Path) -> None:
    elsewhere = link.resolve().rename(tmp_path / "elsewhere")
    link.unlink()
    link.symlink_to(elsewhere)
    assert not drop(MODEL, COMMIT, FILE)
    assert (snapshot(MODEL, COMMIT) / ("../" * 4) / elsewhere.name).exists()
    assert not drop(MODEL, COMMIT, "../" * 4 + elsewhere.name)
    assert elsewhere.exists()
    assert link.is_symlink()
