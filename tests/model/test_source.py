"""What a user may type for a model, and what may be wrong with its folder."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tbcluster.errors import CorruptModelError, ModelNotFoundError, UnsupportedModelError
from tbcluster.model.source import check_folder, find_model
from tests.doubles.checkpoints import LlamaSizes, write_llama

SMALL = LlamaSizes(num_hidden_layers=2, hidden_size=16, intermediate_size=32, vocab_size=40)
Damage = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "model", SMALL, num_shards=3)


@pytest.fixture
def single_file(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "model", SMALL)


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_a_sound_folder(folder: Path) -> None:
    found = find_model(str(folder))
    shards = list(folder.glob("*.safetensors"))
    assert len(shards) == 3
    assert found.path == folder
    assert found.config["model_type"] == "llama"
    assert found.context_length == SMALL.max_position_embeddings
    assert found.generation_config == {}


def test_a_single_weight_file_needs_no_index(single_file: Path) -> None:
    assert check_folder(single_file).path == single_file


def test_the_home_folder_may_be_abbreviated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert find_model("~/model").path == folder


def test_the_generation_config_is_read(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"temperature": 0.6}')
    assert check_folder(folder).generation_config == {"temperature": 0.6}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": None, "n_ctx": 77}, 77),
        ({"text_config": {"max_position_embeddings": 99}}, 99),
        ({"text_config": {}}, SMALL.max_position_embeddings),
        ({"text_config": "none"}, SMALL.max_position_embeddings),
    ],
)
def test_the_context_length(folder: Path, changes: dict[str, object], expected: int | None) -> None:
    edit_config(folder, **changes)
    assert check_folder(folder).context_length == expected


@pytest.mark.parametrize(
    "name",
    [
        "nonsense",
        "./no/such/folder",
        "/no-such-folder/at-all",
        "~/no-such-folder-in-any-home",
        "three/part/name",
        "owner/with space",
        # These have the form of an id at first sight; the hub's own rules refuse them.
        "owner/two--dashes",
        "owner/" + "x" * 200,
    ],
)
def test_neither_a_folder_nor_an_id(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no folder|cannot fetch"):
        find_model(name)


def test_an_id_in_offline_mode_says_that_it_is_offline() -> None:
    # tests/conftest.py sets HF_HUB_OFFLINE for every test process.
    with pytest.raises(ModelNotFoundError, match="offline mode is on") as caught:
        find_model("tbcluster-tests/never-published")
    assert "tbcluster-tests/never-published" in str(caught.value)


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"is a file: name the folder"):
        find_model(str(folder / "config.json"))


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def truncate(name: str, kept: int) -> Damage:
    """Keep this many bytes; of a negative number, lose that many."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:kept])


SHARD = "model-00002-of-00003.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(remove("config.json"), "holds no config.json", id="missing config"),
        pytest.param(write("config.json", b"{'a': 1}"), "cannot read .*config", id="invalid JSON"),
        pytest.param(write("config.json", b""), "cannot read .*config.json", id="empty config"),
        pytest.param(write("config.json", b"\xff\xfe{}"), "cannot read", id="config of no UTF-8"),
        pytest.param(write("config.json", b"[" * 99_999), "cannot read", id="bottomless config"),
        pytest.param(write("config.json", b"[]"), "no JSON object", id="config of no object"),
        pytest.param(write("config.json", b"{}"), "names no model_type", id="no model_type"),
        pytest.param(
            write("config.json", b'{"model_type": 5}'), "names no model_type", id="a number for it"
        ),
        pytest.param(remove(SHARD), f"lacks 1 of 3 weight files, {SHARD}", id="missing shard"),
        pytest.param(write(INDEX, b"{}"), "has no weight_map", id="no weight map"),
        pytest.param(write(INDEX, b'{"weight_map": {}}'), "no weight_map", id="empty weight map"),
        pytest.param(write(INDEX, b"{"), f"cannot read .*{INDEX}", id="invalid index"),
        pytest.param(
            write("generation_config.json", b"{"), "generation_config.json", id="generation config"
        ),
        pytest.param(truncate(SHARD, 0), f"{SHARD} is truncated", id="empty shard"),
        pytest.param(truncate(SHARD, 5), f"{SHARD} is truncated", id="part of the header's size"),
        pytest.param(truncate(SHARD, 100), f"{SHARD} is truncated", id="part of the header"),
        pytest.param(truncate(SHARD, -1), f"{SHARD} is truncated", id="the last byte missing"),
        pytest.param(
            write(SHARD, b"<!DOCTYPE html>" * 50), "no safetensors file", id="an error page"
        ),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(folder: Path, damage: Damage, told: str) -> None:
    damage(folder)
    with pytest.raises(CorruptModelError, match=told):
        find_model(str(folder))


def test_a_folder_without_weights(single_file: Path) -> None:
    (single_file / "model.safetensors").unlink()
    with pytest.raises(CorruptModelError, match=r"holds no model\*.safetensors"):
        check_folder(single_file)


def test_code_that_comes_with_a_model_is_refused(folder: Path) -> None:
    edit_config(folder, model_file="modeling.py")
    (folder / "modeling.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(UnsupportedModelError, match=r"code of its own \('modeling.py'\)"):
        find_model(str(folder))
