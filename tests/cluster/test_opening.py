"""Models that are planned and never loaded: from their files, their config, or their name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster.opening import model_to_plan, open_model
from tbcluster.cluster.planning import METAL
from tbcluster.errors import (
    CorruptModelError,
    FetchError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from tests.doubles.checkpoints import LlamaSizes, write_llama

SIZES = LlamaSizes(num_hidden_layers=3)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "toy", SIZES)


@pytest.fixture
def alone(toy: Path, tmp_path: Path) -> Path:
    """A folder of the same name that holds the config alone."""
    folder = tmp_path / "alone" / "toy"
    folder.mkdir(parents=True)
    config = json.loads((toy / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float32"}))
    return folder


def test_a_folder_with_weights_is_opened_as_to_be_served(toy: Path) -> None:
    opened = model_to_plan(toy, device=METAL)
    assert opened.unservable_because == ""
    assert opened.weights is not None
    assert opened.profile == open_model(toy, is_on_rack=True, device=METAL).profile
    assert opened.notes == ()


def test_a_config_alone_is_enough(toy: Path, alone: Path) -> None:
    whole = model_to_plan(toy, device=METAL).profile
    for source in (alone, alone / "config.json", str(toy / "config.json")):
        opened = model_to_plan(source, device=METAL)
        assert replace(opened.profile, file_bytes=whole.file_bytes) == whole
        assert "config alone" in opened.unservable_because
        assert opened.notes == ("toy: planned from its config alone",)
        assert opened.facts.legal_cuts == (1, 2)


def test_as_if_packed_otherwise(toy: Path, alone: Path) -> None:
    for source in (toy, alone, alone / "config.json", None):
        opened = model_to_plan(source, 4, device=METAL)
        assert opened.profile.weight_kind == "4-bit/64"
        assert "in 4 bits is not there" in opened.unservable_because
        assert opened.notes[-1] == f"{opened.name}: planned as if its weights were in 4 bits"
    plain = model_to_plan(toy, 16, device=METAL)
    assert plain.profile.weight_kind in ("float32", "bfloat16")
    assert "unpacked" in plain.notes[-1]


def test_packed_caches(tmp_path: Path) -> None:
    wide = LlamaSizes(hidden_size=256, num_hidden_layers=2)
    folder = write_llama(tmp_path / "wide", wide)
    plain, packed = (model_to_plan(folder, 4, bits, device=METAL) for bits in (None, 8))
    ours, theirs = (opened.profile.layers[0].caches[0] for opened in (plain, packed))
    assert theirs.bytes_per_token < ours.bytes_per_token


@pytest.mark.parametrize(
    ("name", "spelled", "notes"),
    [
        ("deepseek-r1", "DeepSeek-R1", 1),
        ("DeepSeek-R1-4bit", "DeepSeek-R1-4bit", 1),
        ("deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-R1", 2),
        ("mlx-community/DeepSeek-R1-4bit", "mlx-community/DeepSeek-R1-4bit", 2),
    ],
)
def test_known_by_name(name: str, spelled: str, notes: int) -> None:
    """The hub is asked only where an owner is named; tests run with HF_HUB_OFFLINE=1."""
    opened = model_to_plan(name, device=METAL)
    assert (opened.name, opened.profile.name) == (spelled, spelled)
    assert len(opened.profile.layers) == 61
    assert opened.profile.weight_kind == ("4-bit/64" if "4bit" in name else "bfloat16")
    assert len(opened.notes) == notes
    if notes == 2:
        assert "its files were not looked at" in opened.notes[1]
        assert "HF_HUB_OFFLINE" in opened.notes[1]


def test_a_known_one_in_other_bits() -> None:
    for name in ("DeepSeek-R1", "DeepSeek-R1-8bit", "deepseek-ai/DeepSeek-R1"):
        assert model_to_plan(name, 3, device=METAL).profile.weight_kind == "3-bit/64"


def test_a_folder_wins_over_a_known_name(
    alone: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone.rename(tmp_path / "DeepSeek-R1")
    monkeypatch.chdir(tmp_path)
    assert len(model_to_plan("DeepSeek-R1", device=METAL).profile.layers) == 3


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("Qwen3-9B", ModelNotFoundError, "owner/name; known by name alone are Qwen3-8B,"),
        ("Qwen/Qwen3-9B", FetchError, "HF_HUB_OFFLINE.*known by name alone are .*Qwen3-8B"),
        ("other/DeepSeek-R1", FetchError, "DeepSeek-R1, .* and others"),
        ("zzz", ModelNotFoundError, "known by name alone are DeepSeek-R1, Qwen3-8B"),
    ],
)
def test_names_that_are_near(name: str, error: type[Exception], match: str) -> None:
    for bits in (None, 4):
        with pytest.raises(error, match=match):
            model_to_plan(name, bits, device=METAL)


def test_what_is_wrong_with_a_folder_is_told_as_before(toy: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("x")
    with pytest.raises(ModelNotFoundError, match="is a file") as told:
        model_to_plan(other)
    assert "known by name" not in str(told.value)
    with pytest.raises(ModelNotFoundError, match="no folder") as told:
        model_to_plan(str(tmp_path / "none"))
    assert "known by name" not in str(told.value)
    other.rename(tmp_path / "notes.json")
    with pytest.raises(CorruptModelError, match=r"notes\.json"):
        model_to_plan(tmp_path / "notes.json")
    (toy / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CorruptModelError, match="truncated"):
        model_to_plan(toy)


def test_unknown_architectures_and_bits(alone: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="7 bits"):
        model_to_plan(alone, 7)
    (alone / "config.json").write_text(json.dumps({"model_type": "none_such"}))
    with pytest.raises(UnsupportedModelError, match="none_such"):
        model_to_plan(alone)
