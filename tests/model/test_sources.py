"""Which tensors parameters are made of, and what cannot be followed."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from tbcluster.model.graph import OriginGraph
from tbcluster.model.sources import LazyModel, load_lazily
from tests.doubles import small_checkpoints
from tests.doubles.checkpoints import LlamaSizes, write_llama

NUM_ORIGINS = 1500  # more than MLX lets have names


@pytest.fixture
def origins(tmp_path: Path) -> list[mx.array]:
    names = [f"tensor {i}" for i in range(NUM_ORIGINS)]
    mx.save_safetensors(str(tmp_path / "a.safetensors"), {n: mx.zeros((4, 32)) for n in names})
    tensors = mx.load(str(tmp_path / "a.safetensors"))
    assert isinstance(tensors, dict)
    return [tensors[name] for name in names]


def test_origins_of_what_was_computed_from_them(origins: list[mx.array]) -> None:
    packed, scales, biases = mx.quantize(origins[7] + origins[1400], group_size=32)
    derived = [
        mx.stack(origins[:300]),
        origins[5],
        scales,
        mx.stop_gradient(origins[3]),
        mx.ones((2, 2)),
        packed,
        biases,
    ]
    graph = OriginGraph(origins, derived)
    found = [graph.origins(i) for i in range(len(derived))]
    assert found == [set(range(300)), {5}, {7, 1400}, {3}, set(), {7, 1400}, {7, 1400}]
    assert graph.computed == frozenset()


def test_a_value_that_was_asked_for_is_known(origins: list[mx.array]) -> None:
    assert mx.any(origins[11] + origins[700] > 1).item() is False
    made = origins[2] if np.array(origins[40]).sum() else origins[9]
    graph = OriginGraph(origins, [made])
    assert graph.computed == {11, 40, 700}
    assert graph.origins(0) == {9}


def test_what_is_no_origin(origins: list[mx.array]) -> None:
    for wrong in (origins[0], origins[0] * 2, mx.zeros((2,)) + 1):
        with pytest.raises(ValueError, match="twice, or depends"):
            OriginGraph([*origins[:3], wrong], [])


def test_every_stage_needs_what_was_looked_at(tmp_path: Path) -> None:
    opened = load_lazily(write_llama(tmp_path, LlamaSizes(num_hidden_layers=2)))
    looked_at, needed = "model.layers.0.mlp.up_proj.weight", "model.norm.weight"
    assert opened.needed_tensors([needed]) == {needed}
    mx.eval(opened.tensors[looked_at])
    again = LazyModel(opened.model, opened.tensors, opened.parameters)
    assert again.needed_tensors([needed]) == {needed, looked_at}


def test_through_other_forms(tmp_path: Path) -> None:
    fp8 = load_lazily(small_checkpoints.write_deepseek_fp8(tmp_path / "fp8"))
    latent = "model.layers.1.self_attn"
    both = {f"{latent}.kv_b_proj.weight", f"{latent}.kv_b_proj.weight_scale_inv"}
    assert fp8.needed_tensors([f"{latent}.embed_q.weight"]) == both
    assert fp8.needed_tensors([f"{latent}.unembed_out.weight"]) == both
    awq = load_lazily(small_checkpoints.write_awq(tmp_path / "awq"))
    owner = "model.layers.1.mlp.up_proj"
    biases = {f"{owner}.{kind}" for kind in ("qzeros", "scales")}
    assert awq.needed_tensors([f"{owner}.biases"]) == biases
    assert awq.needed_tensors([f"{owner}.weight"]) == {f"{owner}.qweight"}
    assert f"{owner}.qweight" not in awq.parameters
    assert awq.looked_at == frozenset()
