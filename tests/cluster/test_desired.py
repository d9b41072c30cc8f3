"""What a coordinator leaves for the one that comes after it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tbcluster.cluster.desired import NAME, DesiredModels
from tbcluster.cluster.order import Order
from tbcluster.cluster.saved_preparation import SavedPreparation, saved_order
from tbcluster.core import StageRange
from tbcluster.planner.plan import Wishes
from tbcluster.wire.control import Reference
from tests.doubles.plans import ONE, TWO

ORDER = Order(
    "owner/model",
    wishes=Wishes(context=4096, streams=3),
    by_hand=[[("mini1", StageRange(0, 16)), ("mini2", StageRange(16, 32))]],
)
# Figures that no decimal of few digits gives back.
AWKWARD = replace(
    TWO, replicas=tuple(replace(one, tokens_per_s=0.1 + 0.2, step_s=1 / 3) for one in TWO.replicas)
)
SAVED = SavedPreparation(
    order=saved_order(ORDER),
    identity="abc",
    revision="f" * 40,
    plan=AWKWARD,
    folders={"mini1": "/on/mini1", "mini2": ""},
    reference=Reference((1, 2), (-0.1, -2 / 3), (1e-9, 3.5)),
)


class Bench:
    def __init__(self, folder: Path, given: tuple[str, ...] = ("a", "b")) -> None:
        self.notes: list[str] = []
        self.desired = DesiredModels(folder, given, self.notes.append)


def change(folder: Path, path: list[Any], value: object) -> None:
    """Change a field of the file."""
    file = folder / NAME
    content = json.loads(file.read_text())
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    file.write_text(json.dumps(content))


def test_it_comes_back_exactly(tmp_path: Path) -> None:
    Bench(tmp_path).desired.keep("a", SAVED)
    Bench(tmp_path).desired.keep("late", replace_plan(ONE))
    after = Bench(tmp_path)
    assert after.desired.names == ("a", "late")
    assert after.desired.saved("a") == SAVED
    assert after.desired.saved("late") == replace_plan(ONE)
    assert after.desired.saved("a").plan == AWKWARD  # type: ignore[union-attr]
    assert after.desired.saved("unknown") is None
    assert after.notes == []
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def replace_plan(plan: Any) -> SavedPreparation:
    return SavedPreparation(SAVED.order, SAVED.identity, "", plan, SAVED.folders)


def test_nodes_of_all_replicas_are_needed() -> None:
    assert SAVED.nodes == {"mini1", "mini2", "mini3", "mini4"}


@pytest.mark.parametrize(
    "path",
    [
        ["plan", "replicas", 0, "stages", 0, "layers", "end"],
        ["plan", "context"],
        ["reference", "tokens"],
        ["folders", "mini1"],
    ],
)
def test_a_preparation_that_was_changed_is_made_anew(tmp_path: Path, path: list[Any]) -> None:
    Bench(tmp_path).desired.keep("a", SAVED)
    values = {"end": 17, "context": 1, "tokens": [1, 3], "mini1": "/elsewhere"}
    change(tmp_path, ["models", 0, "saved", *path], values[path[-1]])
    after = Bench(tmp_path)
    assert after.desired.names == ("a",)
    assert after.desired.saved("a") is None
    (note,) = after.notes
    assert "the plan of a was changed" in note


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
        b'{"version": 2, "models": []}',
        b'{"version": 1, "models": [], "surprise": 1}',
        b'{"version": 1, "models": [{"name": 3}]}',
    ],
)
def test_a_file_that_cannot_be_used_counts_for_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    (tmp_path / NAME).chmod(0o600)
    bench = Bench(tmp_path)
    assert bench.desired.names == ()
    (note,) = bench.notes
    assert NAME in note
    bench.desired.keep("a", SAVED)
    assert Bench(tmp_path).desired.saved("a") == SAVED


def test_what_others_may_have_written_is_not_used(tmp_path: Path) -> None:
    Bench(tmp_path).desired.keep("a", SAVED)
    (tmp_path / NAME).chmod(0o666)
    bench = Bench(tmp_path)
    assert bench.desired.names == ()
    assert "chmod 600" in bench.notes[0]


def test_what_is_unloaded_is_forgotten(tmp_path: Path) -> None:
    desired = Bench(tmp_path).desired
    for name in ("a", "late"):
        desired.keep(name, SAVED)
        desired.forget(name)
    after = Bench(tmp_path).desired
    assert after.names == ()
    assert not after.is_unloaded("a"), "it went by itself"


def test_what_was_unloaded_on_purpose_is_not_loaded_again(tmp_path: Path) -> None:
    desired = Bench(tmp_path).desired
    desired.forget("b", is_on_purpose=True)
    desired.forget("late", is_on_purpose=True)
    after = Bench(tmp_path).desired
    assert after.is_unloaded("b")
    assert not after.is_unloaded("late"), "nobody named it"
    assert not Bench(tmp_path, ("b",)).desired.is_unloaded("b"), "someone asks for it now"
    after.keep("b", None)
    assert not Bench(tmp_path).desired.is_unloaded("b")


def test_a_model_that_is_not_named_any_more_is_not_wanted(tmp_path: Path) -> None:
    desired = Bench(tmp_path).desired
    for name in ("a", "b", "late"):
        desired.keep(name, SAVED)
    assert Bench(tmp_path, ("b", "c")).desired.names == ("b", "late")


def test_a_preparation_that_did_not_work_is_forgotten_and_the_model_is_not(tmp_path: Path) -> None:
    desired = Bench(tmp_path).desired
    desired.keep("a", SAVED)
    desired.forget_preparation("a")
    desired.forget_preparation("never")
    after = Bench(tmp_path).desired
    assert (after.names, after.saved("a")) == (("a",), None)


def test_an_end_on_purpose_leaves_nothing(tmp_path: Path) -> None:
    desired = Bench(tmp_path).desired
    desired.keep("a", SAVED)
    desired.clear()
    desired.clear()
    assert not (tmp_path / NAME).exists()
    assert Bench(tmp_path).desired.names == ()


def test_what_cannot_be_written_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").write_text("a file")
    desired = DesiredModels(tmp_path / "home")
    desired.keep("a", SAVED)
    assert desired.saved("a") == SAVED
    assert "cannot be written" in caplog.text
