"""Which models `tbcluster serve` lets clients have."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from tbcluster.cli.fetch_bars import FetchBars
from tbcluster.cli.loading import StageBars
from tbcluster.cli.served import LOOK_AGAIN_S, ClusterMaker, HeldHere, catalogue_of
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.models.catalogue import Loadable
from tbcluster.cluster.plan_request import PlanRequest
from tbcluster.core import StageRange
from tbcluster.errors import ModelError, ModelNotFoundError
from tbcluster.planner.plan import Wishes
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


def test_names_are_looked_up_among_the_models_of_a_folder(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "lib" / "acme" / "toy")
    catalogue = catalogue_of([None, "acme/toy"], [tmp_path / "lib"])
    assert catalogue.given[1] == Loadable("acme/toy", folder, folder)
    assert list(catalogue.all()) == ["tbcluster-demo", "acme/toy"]
    with pytest.raises(ModelNotFoundError, match=r"no folder 'ty', .*acme/toy"):
        catalogue_of([None, "ty"], [tmp_path / "lib"])


def test_what_a_plan_file_says_is_for_its_model_alone() -> None:
    placed = [[("this machine", StageRange(0, 8))]]
    maker = ClusterMaker(
        first="a",
        request=PlanRequest("a", Wishes(context=100, streams=2), 8, placed),
        others=PlanRequest(None, Wishes(), None),
        kv=KvOptions(bits=8),
        rack=None,
        placed=(),
        stage_bars=StageBars(),
        fetch_bars=FetchBars(),
    )
    orders = [
        maker(
            Loadable(name, None),
            taken_bytes={},
            taken_now=dict,
            saved=None,
            on_plan=lambda _: None,
            on_replanned=lambda: None,
        ).preparation._order
        for name in "ab"
    ]
    assert [order.wishes.context for order in orders] == [100, None]
    assert [order.kv.bits for order in orders] == [8, None]
    assert [order.by_hand for order in orders] == [placed, []]
    assert [order.shortens_context for order in orders] == [False, True]


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
