"""Ternary BitNet layers on devices without Metal.

mlx-lm multiplies packed ternary weights with a Metal kernel. Elsewhere they are repacked, without
arithmetic on the weights, into MLX's affine 2-bit quantization: a ternary weight t in {-1, 0, 1} is
q - 1 with q in {0, 1, 2}, so scale s and bias -s give q * s - s = t * s exactly.
"""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.bitlinear_layers import BitLinear

from tbcluster.errors import UnsupportedModelError

BITS = 2
VALUES_PER_WORD = 32 // BITS
GROUP_SIZES = (128, 64, 32)


def repack_bitlinear(model: nn.Module, dtype: mx.Dtype) -> int:
    """Replace every BitLinear of `model` by an equal quantized layer (lazily) and count them.

    Raises:
        UnsupportedModelError: A layer's width is not a multiple of 32.
    """
    leaves = tree_flatten(model.leaf_modules(), is_leaf=nn.Module.is_module)
    replaced = [
        (path, _quantized(path, module, dtype))
        for path, module in leaves
        if isinstance(module, BitLinear)
    ]
    if replaced:
        model.update_modules(tree_unflatten(replaced))
    return len(replaced)


def repack(packed: mx.array) -> mx.array:
    """Four ternary weights a byte -> sixteen a 32-bit word.

    Args:
        packed: uint8 (outputs / 4, inputs); bits 2i and 2i+1 of row r hold weight + 1 of output
            row r + i * outputs / 4.

    Returns:
        uint32 (outputs, inputs / 16), as `mx.quantized_matmul` reads it.
    """
    shifts = mx.array([0, 2, 4, 6], dtype=mx.uint8)[:, None, None]
    values = ((packed[None] >> shifts) & 3).reshape(-1, packed.shape[1])
    rows, columns = values.shape
    words = values.reshape(rows, columns // VALUES_PER_WORD, VALUES_PER_WORD).astype(mx.uint32)
    return (words << (mx.arange(VALUES_PER_WORD, dtype=mx.uint32) * BITS)).sum(-1).astype(mx.uint32)


def _quantized(path: str, layer: BitLinear, dtype: mx.Dtype) -> nn.QuantizedLinear:
    inputs, outputs = layer.in_features, layer.out_features
    group_size = next((size for size in GROUP_SIZES if inputs % size == 0), None)
    if group_size is None or outputs % 4:
        raise UnsupportedModelError(
            f"the ternary layer {path} is {outputs} x {inputs}: off Metal its inputs must be a "
            "multiple of 32 and its outputs of 4"
        )
    has_bias = layer.bias is not None
    quantized = nn.QuantizedLinear(group_size, group_size, has_bias, group_size, BITS)
    given = layer.weight_scale.astype(dtype).reshape(1, 1)
    scale = 1 / given if layer.invert_weight_scales else given
    quantized.weight = repack(layer.weight)[:outputs]
    quantized.scales = mx.broadcast_to(scale, (outputs, inputs // group_size))
    quantized.biases = -quantized.scales
    if has_bias:
        quantized.bias = layer.bias.astype(dtype)
    return quantized
