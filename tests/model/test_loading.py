"""From a checkpoint on disk to a stage that holds, and has read, its own weights alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tbcluster.core import StageRange
from tbcluster.errors import (
    CorruptModelError,
    PlanError,
    StageMemoryError,
    UnsupportedModelError,
)
from tbcluster.model import loading
from tbcluster.model.device import Device
from tbcluster.model.loading import load_stage, open_model
from tbcluster.model.slicing import HiddenStates, StageModel
from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.stages import evaluate

SIZES = LlamaSizes()
CPU = Device("CPU", mx.float32)
AS_STORED = Device("any", None)
TOKENS = mx.array([[5, 17, 200, 3]])
IO_COUNTERS = Path("/proc/self/io")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"), SIZES, num_shards=3)


@pytest.fixture
def own_checkpoint(tmp_path: Path) -> Path:
    """A checkpoint that the test may damage."""
    return write_llama(tmp_path, LlamaSizes(num_hidden_layers=1, vocab_size=40))


def edit_config(path: Path, **changes: Any) -> None:
    config = json.loads((path / "config.json").read_text()) | changes
    (path / "config.json").write_text(json.dumps(config))


def lazy_tensors(file: Path) -> dict[str, mx.array]:
    """The tensors of a file, none of them read yet."""
    return cast(dict[str, mx.array], mx.load(str(file)))


def logits(stages: list[StageModel]) -> mx.array:
    result: HiddenStates | mx.array | None = None
    for stage in stages:
        cache = stage.make_cache()
        incoming = result if isinstance(result, HiddenStates) else None
        result = stage.forward(TOKENS, cache, incoming)
        evaluate(result, cache)
    assert isinstance(result, mx.array)
    return result


def stage_bytes(path: Path, layers: StageRange) -> int:
    """Bytes in the files of these layers' tensors."""
    total = 0
    for file in path.glob("*.safetensors"):
        for name, array in lazy_tensors(file).items():
            parts = name.split(".")
            if parts[1] == "layers" and layers.start <= int(parts[2]) < layers.end:
                total += array.nbytes
    return total


def test_the_double_writes_what_it_is_asked_for(tmp_path: Path) -> None:
    write_llama(tmp_path, SIZES, num_shards=5, seed=1)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted({*index["weight_map"].values()})
    assert files == [f"model-{number:05}-of-00005.safetensors" for number in range(1, 6)]
    assert files == sorted(file.name for file in tmp_path.glob("*.safetensors"))
    sizes = [(tmp_path / file).stat().st_size for file in files]
    assert max(sizes) < 2 * min(sizes)
    tensors = {k: v for file in files for k, v in lazy_tensors(tmp_path / file).items()}
    assert {*tensors} == {*index["weight_map"]}
    assert sum(a.nbytes for a in tensors.values()) == index["metadata"]["total_size"]
    again = write_llama(tmp_path / "again", SIZES, seed=1)
    other = write_llama(tmp_path / "other", SIZES, seed=2)
    name = "model.layers.1.mlp.up_proj.weight"
    same, different = (lazy_tensors(path / "model.safetensors")[name] for path in (again, other))
    assert mx.array_equal(same, tensors[name]).item()
    assert not mx.array_equal(different, tensors[name]).item()


def test_stages_read_from_shards_equal_the_whole_model(checkpoint: Path) -> None:
    whole = load_stage(checkpoint, StageRange(0, 4), CPU)
    stages = [load_stage(checkpoint, StageRange(*r), CPU) for r in ((0, 1), (1, 3), (3, 4))]
    expected = logits([whole])
    assert expected.shape == (1, TOKENS.size, SIZES.vocab_size)
    assert np.ptp(np.array(expected)) > 0.1
    assert mx.array_equal(logits(stages), expected).item()


def test_progress_runs_from_nothing_to_the_stages_bytes(checkpoint: Path) -> None:
    layers = StageRange(1, 3)
    told: list[tuple[int, int]] = []
    load_stage(checkpoint, layers, CPU, lambda *progress: told.append(progress))
    total = stage_bytes(checkpoint, layers)
    assert {of for _, of in told} == {total}
    loaded = [done for done, _ in told]
    assert loaded == [0, total // 2, total]


MEASURE = """
import sys
from pathlib import Path
import mlx_lm.models.llama  # what is imported is read too
from tbcluster.core import StageRange
from tbcluster.model.device import current_device
from tbcluster.model.loading import load_stage

def bytes_read():
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])

before = bytes_read()
load_stage(Path(sys.argv[1]), StageRange(int(sys.argv[2]), int(sys.argv[3])), current_device())
print(bytes_read() - before)
"""


@pytest.mark.skipif(not IO_COUNTERS.exists(), reason="only Linux counts the bytes a process reads")
def test_a_stage_reads_its_own_bytes_only(tmp_path: Path) -> None:
    sizes = LlamaSizes(
        num_hidden_layers=8, hidden_size=256, intermediate_size=1024, vocab_size=2000
    )
    write_llama(tmp_path, sizes, dtype="bfloat16", num_shards=3)
    command = [sys.executable, "-c", MEASURE, str(tmp_path), "3", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    num_read = int(done.stdout)
    share = stage_bytes(tmp_path, StageRange(3, 5))
    in_all = sum(file.stat().st_size for file in tmp_path.glob("*.safetensors"))
    # Besides its tensors it reads headers, the config and the traced graph: less than half a layer.
    assert share <= num_read < share * 5 / 4
    assert share < in_all / 4


@pytest.mark.parametrize(
    ("device", "expected"), [(CPU, mx.float32), (AS_STORED, mx.bfloat16)], ids=["CPU", "other"]
)
def test_a_bfloat16_checkpoint(tmp_path: Path, device: Device, expected: mx.Dtype) -> None:
    write_llama(tmp_path, LlamaSizes(num_hidden_layers=1), dtype="bfloat16")
    stored = lazy_tensors(tmp_path / "model.safetensors")
    loaded = dict(tree_flatten(open_model(tmp_path, device).parameters()))
    assert {array.dtype for array in stored.values()} == {mx.bfloat16}
    assert {array.dtype for array in loaded.values()} == {expected}
    assert {*loaded} == {*stored}
    # bfloat16 is a prefix of float32: nothing is lost.
    assert all(mx.array_equal(loaded[name], array).item() for name, array in stored.items())


@pytest.mark.parametrize("model_type", ["no_such_architecture", "", "..", "a.b"])
def test_an_unknown_architecture(own_checkpoint: Path, model_type: str) -> None:
    edit_config(own_checkpoint, model_type=model_type)
    with pytest.raises(UnsupportedModelError, match="not supported"):
        open_model(own_checkpoint, CPU)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"num_hidden_layers": 2}, id="a layer more than the weights"),
        pytest.param({"num_hidden_layers": 0}, id="a layer less"),
        pytest.param({"hidden_size": 32}, id="another width"),
        pytest.param({"vocab_size": 41}, id="another vocabulary"),
        pytest.param({"num_key_value_heads": 4}, id="other heads"),
        pytest.param({"num_attention_heads": 0}, id="no heads"),
        pytest.param({"hidden_size": None}, id="no width"),
        pytest.param({"hidden_size": -4}, id="a negative width"),
        pytest.param({"num_hidden_layers": "two"}, id="a text for a number"),
        pytest.param({"rope_scaling": "linear"}, id="a text for an object"),
        pytest.param({"quantization": {"bits": 4}}, id="half a quantization"),
        pytest.param({"quantization_config": {}, "quantization": 4}, id="a number for an object"),
        # A module of mlx-lm's that is no architecture.
        pytest.param({"model_type": "cache"}, id="no architecture"),
        pytest.param({"model_type": "gpt2"}, id="another architecture"),
    ],
)
def test_weights_that_do_not_fit_the_config(own_checkpoint: Path, changes: dict[str, Any]) -> None:
    edit_config(own_checkpoint, **changes)
    with pytest.raises(CorruptModelError) as caught:
        open_model(own_checkpoint, CPU)
    assert str(own_checkpoint) in str(caught.value)


def without_norm(tensors: dict[str, mx.array]) -> None:
    del tensors["model.norm.weight"]


def with_a_stranger(tensors: dict[str, mx.array]) -> None:
    tensors["model.stranger"] = mx.zeros((1,))


@pytest.mark.parametrize("damage", [without_norm, with_a_stranger])
def test_missing_and_unknown_tensors(
    own_checkpoint: Path, damage: Callable[[dict[str, mx.array]], None]
) -> None:
    file = own_checkpoint / "model.safetensors"
    tensors = lazy_tensors(file)
    mx.eval(tensors)
    damage(tensors)
    mx.save_safetensors(str(file), tensors)
    with pytest.raises(CorruptModelError, match=r"model\.(norm|stranger)"):
        open_model(own_checkpoint, CPU)


@pytest.mark.parametrize("content", [b"", b"no safetensors file at all"])
def test_a_garbled_weight_file(own_checkpoint: Path, content: bytes) -> None:
    (own_checkpoint / "model.safetensors").write_bytes(content)
    with pytest.raises(CorruptModelError):
        open_model(own_checkpoint, CPU)


def test_memory_that_runs_out_is_told_with_numbers(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Mac; on a CPU MLX ends the process instead."""

    def fail(*_: object) -> None:
        raise RuntimeError("[metal::malloc] Resource limit (499000) exceeded.")

    monkeypatch.setattr(loading.mx, "eval", fail)
    told = r"0 MiB of .* MiB were loaded, and .* are left on the machine \(\[metal::malloc\]"
    with pytest.raises(StageMemoryError, match=told):
        load_stage(checkpoint, StageRange(0, 1), CPU)


@pytest.mark.parametrize("layers", [(0, 5), (2, 2), (3, 1), (-1, 2)])
def test_layers_that_the_model_does_not_have(checkpoint: Path, layers: tuple[int, int]) -> None:
    with pytest.raises(PlanError, match="model of 4"):
        load_stage(checkpoint, StageRange(*layers), CPU)
