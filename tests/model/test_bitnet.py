"""Repacked ternary layers equal the packed ones bit for bit."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.bitlinear_layers import BitLinear
from numpy.typing import NDArray

from tbcluster.errors import UnsupportedModelError
from tbcluster.model.bitnet import repack, repack_bitlinear
from tests.doubles import architectures


class Holder(nn.Module):
    """A model with a ternary layer inside a list, as in mlx-lm, and a plain one."""

    def __init__(self, layer: BitLinear) -> None:
        super().__init__()
        self.blocks = [nn.Linear(2, 2), layer]


def ternary(outputs: int, inputs: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-1, 2, (outputs, inputs))


def pack(weights: NDArray[np.int64]) -> mx.array:
    """mlx-lm's layout: a quarter of the output rows in each pair of bits."""
    quarters = (weights + 1).reshape(4, -1, weights.shape[1])
    packed = sum(quarter << (2 * i) for i, quarter in enumerate(quarters))
    return mx.array(np.asarray(packed, np.uint8))


def bit_linear(
    weights: NDArray[np.int64], scale: float, *, has_bias: bool = False, invert: bool = False
) -> BitLinear:
    outputs, inputs = weights.shape
    layer = BitLinear(inputs, outputs, bias=has_bias, invert_weight_scales=invert)
    layer.weight = pack(weights)
    layer.weight_scale = mx.array([scale])
    if has_bias:
        layer.bias = mx.arange(outputs).astype(mx.float32)
    return layer


def replaced(layer: BitLinear, dtype: mx.Dtype = mx.float32) -> nn.QuantizedLinear:
    holder = Holder(layer)
    assert repack_bitlinear(holder, dtype) == 1
    plain, made = holder.blocks
    assert type(plain) is nn.Linear
    assert type(made) is nn.QuantizedLinear
    return made


def dequantized(layer: nn.QuantizedLinear) -> mx.array:
    return mx.dequantize(layer.weight, layer.scales, layer.biases, layer.group_size, layer.bits)


def test_words_hold_sixteen_weights_each_lowest_first() -> None:
    weights = ternary(8, 32)
    shifted = (weights + 1).astype(np.uint64).reshape(8, 2, 16)
    expected = sum(shifted[:, :, i] << np.uint64(2 * i) for i in range(16))
    words = repack(pack(weights))
    assert words.dtype == mx.uint32
    assert np.array_equal(np.array(words), np.asarray(expected))


@pytest.mark.parametrize(
    ("inputs", "group_size"), [(32, 32), (64, 64), (96, 32), (128, 128), (192, 64), (640, 128)]
)
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
def test_weights_are_the_ternary_ones_times_the_scale(
    inputs: int, group_size: int, dtype: mx.Dtype
) -> None:
    weights = ternary(12, inputs)
    # A third is exact in no binary type.
    layer = replaced(bit_linear(weights, 1 / 3), dtype)
    assert layer.group_size == group_size
    scale = mx.array(1 / 3).astype(dtype)
    assert mx.array_equal(dequantized(layer), mx.array(weights).astype(dtype) * scale).item()


@pytest.mark.parametrize("invert", [False, True])
def test_both_conventions_of_the_scale(invert: bool) -> None:
    weights = ternary(8, 64)
    layer = replaced(bit_linear(weights, 3.0, invert=invert))
    scale = np.float32(1) / np.float32(3) if invert else np.float32(3)
    assert np.array_equal(np.array(dequantized(layer)), weights.astype(np.float32) * scale)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_the_layer_multiplies_as_numpy_does(has_bias: bool, rows: int) -> None:
    weights = ternary(16, 128)
    layer = replaced(bit_linear(weights, 0.5, has_bias=has_bias))
    assert ("bias" in layer) == has_bias
    # Small integers and a power of two: every sum is exact in float32, in any order.
    x = np.random.default_rng(1).integers(-8, 9, (2, rows, 128)).astype(np.float32)
    expected = x @ (weights.T * np.float32(0.5)) + (np.arange(16) if has_bias else 0)
    assert np.array_equal(np.array(layer(mx.array(x))), expected.astype(np.float32))


@pytest.mark.parametrize(("outputs", "inputs"), [(8, 48), (8, 16), (6, 32), (7, 128)])
def test_odd_widths_are_refused_by_name(outputs: int, inputs: int) -> None:
    model = Holder(BitLinear(inputs, outputs))
    with pytest.raises(UnsupportedModelError, match=f"blocks.1 is {outputs} x {inputs}"):
        repack_bitlinear(model, mx.float32)
    assert type(model.blocks[1]) is BitLinear


def test_a_model_without_ternary_layers_is_left_as_it_is() -> None:
    model = architectures.build("llama")
    before = [(path, id(array)) for path, array in tree_flatten(model.parameters())]
    assert repack_bitlinear(model, mx.float32) == 0
    assert [(path, id(array)) for path, array in tree_flatten(model.parameters())] == before


def test_every_ternary_layer_of_a_model_is_replaced() -> None:
    model = architectures.build("bitnet")
    before = [type(m) for _, m in model.named_modules()].count(BitLinear)
    assert before == 6 * 7  # four projections of attention and three of the MLP, in six layers
    assert repack_bitlinear(model, mx.float32) == before
    after = [type(module) for _, module in model.named_modules()]
    assert BitLinear not in after
    assert after.count(nn.QuantizedLinear) == before
