"""A model on the nodes of a rack, before anything is loaded."""

from pathlib import Path

import pytest

from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import PlacedRange, Site, Spread
from tbcluster.cluster.served_model import open_served_model
from tbcluster.core import StageRange
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import PlanError

SITES = (Site("head", 10**9), Site("mini2", 2 * 10**9))


def test_an_even_split_over_the_nodes_each_with_its_own_memory() -> None:
    model = open_served_model(None, None, KvOptions(), Spread(SITES))
    assert model.nodes == ("head", "mini2")
    assert [layers.end - layers.start for layers in model.ranges] == [4, 4]
    assert model.kv_budgets[1] > 1.9 * model.kv_budgets[0]


def test_by_hand() -> None:
    by_hand = (
        PlacedRange("head", StageRange(6, 8)),
        PlacedRange("mini2", StageRange(0, 6)),
    )
    model = open_served_model(None, None, KvOptions(), Spread(SITES, by_hand))
    assert model.nodes == ("mini2", "head")
    assert model.ranges == (StageRange(0, 6), StageRange(6, 8))


def test_every_node_looks_for_the_model_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_served_model(None, None, KvOptions(), Spread(SITES)).source == ""
    monkeypatch.chdir(MODEL_PATH.parent)
    named = open_served_model(MODEL_PATH.name, None, KvOptions(), Spread(SITES))
    assert named.source == str(MODEL_PATH)


def test_prefixes_on_disk_are_for_one_machine(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"leave out --prefix-folder, or .* --local"):
        open_served_model(None, None, KvOptions(prefix_folder=tmp_path), Spread(SITES))
