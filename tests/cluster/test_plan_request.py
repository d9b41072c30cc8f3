"""What is asked of a plan, from options and from a file."""

import os
from pathlib import Path

import pytest

from tbcluster.cluster.plan_file import SavedPlan
from tbcluster.cluster.plan_request import lasting_name, plan_request
from tbcluster.core import StageRange
from tbcluster.errors import PlanError
from tbcluster.planner.plan import DEFAULT_STREAMS, Wishes

PLACED = ((("mini1", StageRange(0, 16)), ("mini2", StageRange(16, 32))),)
SAVED = SavedPlan("owner/name", 4096, 2, 8, PLACED)


def test_without_a_file_the_options_are_the_wishes() -> None:
    assert plan_request(None).wishes == Wishes()
    asked = plan_request(
        "owner/name", context=100, streams=3, kv_bits=4, kv_memory_bytes=5, stages=6, replicas=7
    )
    assert asked.wishes == Wishes(100, 3, 6, 7, kv_memory_bytes=5, kv_bits=4)
    assert (asked.model, asked.kv_bits, asked.by_hand) == ("owner/name", 4, ())
    assert plan_request("owner/name").wishes.streams == DEFAULT_STREAMS
    assert [plan_request(None, saved, bits=4).bits for saved in (None, SAVED)] == [4, 4]
    assert plan_request(None, SAVED).bits is None


def test_a_file_says_what_no_option_does() -> None:
    asked = plan_request(None, SAVED)
    assert (asked.model, asked.kv_bits, asked.by_hand) == ("owner/name", 8, PLACED)
    assert asked.wishes == Wishes(4096, 2, kv_bits=8)
    asked = plan_request("owner/name", SAVED, context=99, streams=1, kv_bits=4, kv_memory_bytes=7)
    assert (asked.kv_bits, asked.wishes) == (4, Wishes(99, 1, kv_memory_bytes=7, kv_bits=4))


@pytest.mark.parametrize("option", ["stages", "replicas"])
def test_what_a_file_decides_is_not_asked_for_besides(option: str) -> None:
    with pytest.raises(PlanError, match=f"leave out --{option}, or --plan"):
        plan_request(None, SAVED, **{option: 2})  # type: ignore[arg-type]


def test_a_plan_is_for_one_model() -> None:
    with pytest.raises(PlanError, match="is for owner/name, and other/name was asked for"):
        plan_request("other/name", SAVED)
    with pytest.raises(PlanError, match="is for the bundled model"):
        plan_request("other/name", replace_model(None))


def test_a_folder_is_the_same_from_wherever_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert lasting_name("model") == os.path.realpath(tmp_path / "model")
    assert plan_request("model", replace_model(lasting_name("model"))).model == lasting_name(
        "model"
    )


@pytest.mark.parametrize("name", [None, "owner/name", "~nobody-of-this-name/x", "x" * 5000])
def test_other_names_stay_as_they_are(name: str | None) -> None:
    assert lasting_name(name) == name


def replace_model(model: str | None) -> SavedPlan:
    return SavedPlan(model, SAVED.context, SAVED.streams, SAVED.kv_bits, SAVED.placement)
