"""What each parameter of a model is: how large, packed how, and read in which way."""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.models.bitlinear_layers import BitLinear

from tbcluster.model.experts import switch_linears
from tbcluster.model.head import AS_LINEAR

# A packed weight is made of 32-bit words; with it come numbers that say how to unpack it.
WORD_BITS = 32
UNPACKING = ("scales", "biases", "global_scale", "weight_scale")
TERNARY_VALUES_PER_BYTE = 4
AFFINE = "affine"


@dataclass(frozen=True, slots=True)
class Weight:
    """A parameter.

    Attributes:
        module: Path of the module that it belongs to.
        num_values: What its model's makers count: of a packed weight the values in it, and none
            of the numbers that say how to unpack it.
        num_experts: Of the stack of routed experts it is, or belongs to; 0 for any other.
        is_table: Whether it is, or belongs to, an embedding.
        is_matrix: Whether a token is multiplied with it.
        kind: "4-bit/64" for affine quantization in groups of 64, the name of any other, or its
            type.
    """

    module: str
    num_bytes: int
    num_values: int
    num_experts: int
    is_table: bool
    is_matrix: bool
    kind: str


def weights_of(model: nn.Module) -> dict[str, Weight]:
    """Path -> parameter, of a model whose parameters may all be lazy."""
    modules = dict(model.named_modules())
    stacks = switch_linears(model)
    return {
        path: _weight(path, array, owner, modules[owner], owner in stacks)
        for path, array in tree_flatten(model.parameters())
        for owner in (_owner(path, modules),)
    }


def _owner(path: str, modules: dict[str, nn.Module]) -> str:
    """The innermost module around a parameter, which may lie in a list or dict of it."""
    owner = path
    while owner not in modules:
        owner = owner.rpartition(".")[0]
    return owner


def _weight(path: str, array: mx.array, owner: str, module: nn.Module, is_stack: bool) -> Weight:
    name = path.rpartition(".")[2]
    packs = _values_per_item(module)
    is_unpacking = packs > 1 and name in UNPACKING
    return Weight(
        module=owner,
        num_bytes=array.nbytes,
        num_values=0 if is_unpacking else round(array.size * (packs if name == "weight" else 1)),
        num_experts=array.shape[0] if is_stack else 0,
        is_table=hasattr(module, AS_LINEAR),
        is_matrix=array.ndim > 1 and not is_unpacking,
        kind=_kind(module, array) if packs > 1 else str(array.dtype).removeprefix("mlx.core."),
    )


def _values_per_item(module: nn.Module) -> float:
    """How many values an item of its `weight` holds."""
    if isinstance(module, BitLinear):
        return TERNARY_VALUES_PER_BYTE
    return WORD_BITS / module.bits if "scales" in module else 1


def _kind(module: nn.Module, array: mx.array) -> str:
    if isinstance(module, BitLinear):
        return "ternary"
    mode = getattr(module, "mode", AFFINE)
    if mode != AFFINE:
        return str(mode)
    return f"{module.bits}-bit/{module.group_size}"
