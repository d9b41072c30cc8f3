"""Which models `tbcluster serve` lets clients have."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from tbcluster.cli.served import LOOK_AGAIN_S, HeldHere, catalogue_of
from tbcluster.cluster.models.catalogue import Loadable
from tbcluster.errors import ModelError, ModelNotFoundError
from tests.doubles.checkpoints import write_llama

HELD = "owner/held"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the Hugging Face cache has a whole model."""
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("TBCLUSTER_HOME", str(tmp_path / "home"))
    repository = cache / "models--owner--held"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    return write_llama(repository / "snapshots" / ("a" * 40))


def test_named_models_come_first_and_keep_their_order(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "toy")
    catalogue = catalogue_of(["owner/model", str(folder), None], [tmp_path])
    assert list(catalogue.all().values()) == [
        Loadable("owner/model", "owner/model", None),
        Loadable("toy", str(folder), folder),
        Loadable("tbcluster-demo", None, None),
    ]


@pytest.mark.parametrize("second", ["other/toy", "./toy", "toy/"])
def test_two_models_of_one_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("toy", "other/toy"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ModelError, match="toy is named twice"):
        catalogue_of(["toy", second], [])


def test_a_folder_of_models_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        catalogue_of([], [tmp_path / "none"])


@pytest.mark.parametrize("is_on_rack", [True, False], ids=["rack", "alone"])
def test_what_the_cache_holds_can_be_served_and_on_one_machine_from_there(
    snapshot: Path, is_on_rack: bool
) -> None:
    catalogue = catalogue_of([], [], holds_too=True, is_on_rack=is_on_rack)
    source = HELD if is_on_rack else snapshot
    assert list(catalogue.all().values()) == [Loadable(HELD, source, snapshot)]
    assert not catalogue_of([], []).all()


def test_the_cache_is_not_read_for_each_request(snapshot: Path) -> None:
    now = 0.0
    held = HeldHere(is_on_rack=False, clock=lambda: now)
    assert [one.name for one in held()] == [HELD]
    (snapshot / "config.json").unlink()
    now = LOOK_AGAIN_S - 0.1
    assert [one.name for one in held()] == [HELD]
    now = LOOK_AGAIN_S
    assert held() == ()
