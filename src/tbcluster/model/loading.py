"""From a folder to a stage's weights in memory, and nothing else in memory.

Every tensor is opened lazily and goes through mlx-lm's own loading (sanitizing, quantization); then
what the stage does not need is replaced by placeholders and what it needs is read layer by layer.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from tbcluster.core import StageRange
from tbcluster.errors import CorruptModelError, StageMemoryError, UnsupportedModelError
from tbcluster.hardware.memory import left_bytes
from tbcluster.model.bitnet import repack_bitlinear
from tbcluster.model.device import Device, lacks_memory
from tbcluster.model.slicing import StageModel
from tbcluster.model.sources import LazyModel, load_lazily
from tbcluster.model.trace import ModelTrace
from tbcluster.model.tracer import needed_parameters, trace
from tbcluster.planner.words import amount

Progress = Callable[[int, int], None]


def open_model(path: Path, device: Device) -> nn.Module:
    """The whole model with lazy parameters: file headers are read, weights are not; see
    `open_lazily` for what it raises."""
    return open_lazily(path, device).model


def open_lazily(path: Path, device: Device) -> LazyModel:
    """The whole model with lazy parameters, and the tensors of its files, lazy as well: whoever
    computes parameters lets go of them first, or both stay in memory.

    Raises:
        UnsupportedModelError: mlx-lm does not know the architecture.
        CorruptModelError: The weights do not fit the config.
    """
    with model_errors(path):
        opened = load_lazily(path)
    return for_device(opened, device)


@contextmanager
def model_errors(path: Path) -> Iterator[None]:
    """Tell what mlx-lm raises while it makes a model.

    Raises:
        UnsupportedModelError: mlx-lm does not know the architecture.
        CorruptModelError: The weights, or values in the config, do not fit.
    """
    try:
        yield
    except ValueError as error:
        if "not supported" in str(error):
            raise UnsupportedModelError(f"{path}: {error}") from error
        raise CorruptModelError(f"{path}: {error}") from error
    # Whatever a wrong value in a config makes mlx-lm's model classes stumble over.
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        raise CorruptModelError(f"{path}: {type(error).__name__}: {error}") from error


def for_device(opened: LazyModel, device: Device) -> LazyModel:
    """The same, with its parameters in the type and packing that the device computes in."""
    model, compute_dtype = opened.model, device.compute_dtype
    if not mx.metal.is_available():
        repack_bitlinear(model, compute_dtype or mx.bfloat16)
    if compute_dtype is not None:
        model.set_dtype(compute_dtype)
    return opened


def load_stage(
    path: Path,
    layers: StageRange,
    device: Device,
    on_progress: Progress = lambda *_: None,
    kv_bits: int | None = None,
) -> StageModel:
    """Load the weights of one stage.

    Args:
        on_progress: Called with (bytes loaded, bytes in all) after each layer.
        kv_bits: 8 or 4 for quantized KV caches, None for plain ones.

    Raises:
        StageMemoryError: There is too little memory for them now.
    """
    model = open_model(path, device)
    traced = trace(model)
    needed = needed_parameters(model, traced, layers.start, layers.end)
    keep_only(model, needed)
    read_weights(model, traced, needed, on_progress)
    return StageModel(model, traced, layers.start, layers.end, kv_bits)


def keep_only(model: nn.Module, needed: set[str]) -> None:
    """Replace every other parameter by a placeholder of its own shape and dtype, never evaluated.

    The dtype must stay: mlx-lm's models read it from weights they do not otherwise use.
    """
    placeholders = [
        (path, mx.zeros(array.shape, array.dtype))
        for path, array in tree_flatten(model.parameters())
        if path not in needed
    ]
    model.update(tree_unflatten(placeholders))


def read_weights(
    model: nn.Module, traced: ModelTrace, needed: set[str], on_progress: Progress
) -> None:
    """Read the needed parameters, one layer at a time, so that no file's worth piles up."""
    parts = list(_by_layer(model, traced, needed))
    total = sum(array.nbytes for part in parts for array in part)
    loaded = 0
    on_progress(0, total)
    for part in parts:
        try:
            mx.eval(part)
        except (MemoryError, RuntimeError) as error:
            if lacks_memory(error):
                raise StageMemoryError(_told_memory(loaded, total, error)) from error
            raise
        mx.clear_cache()
        loaded += sum(array.nbytes for array in part)
        on_progress(loaded, total)


def _told_memory(loaded: int, total: int, error: Exception) -> str:
    return (
        f"there is too little memory: {amount(loaded)} of {amount(total)} were loaded, and "
        f"{amount(left_bytes())} are left on the machine ({error}); end what else runs there, or "
        "plan with less of its memory (--memory)"
    )


def _by_layer(model: nn.Module, traced: ModelTrace, needed: set[str]) -> Iterable[list[mx.array]]:
    parts: dict[int | None, list[mx.array]] = {}
    for path, array in tree_flatten(model.parameters()):
        if path in needed:
            parts.setdefault(traced.layer_of.get(path), []).append(array)
    return parts.values()
