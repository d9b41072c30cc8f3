"""Running a model's forward pass as graph only: nothing is read, computed or allocated."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from tbcluster.model.caches import Cache


class EvaluationNeededError(Exception):
    """The forward pass looks at values, so it cannot be run without computing them."""


def refusing_evaluation(function: Callable[..., object], num_scalars: int) -> None:
    """Call `function` with placeholder scalars; MLX refuses to evaluate what depends on them.

    Raises:
        EvaluationNeededError: The function tried.
    """

    def traced(*scalars: mx.array) -> mx.array:
        function(*scalars)
        raise _DoneError

    try:
        # Inside this context MLX refuses to evaluate, which is all it is used for.
        mx.export_function(lambda _: None, traced, *(mx.zeros(()) for _ in range(num_scalars)))
    except _DoneError:
        pass
    except ValueError as error:
        if "eval" in str(error):
            raise EvaluationNeededError from error
        raise


@contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Undo what a block does to a model: parameters that it replaces, and what a forward pass keeps
    for the next one (kimi_k3 keeps weights that it derives from others)."""
    parameters = model.parameters()
    before = [(module, dict(module), dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        model.update(parameters)
        for module, items, attributes in before:
            # A module is a dict of its arrays and submodules, with an `update` of its own.
            dict.clear(module)
            dict.update(module, items)
            vars(module).clear()
            vars(module).update(attributes)


def run_unevaluated(model: nn.Module, runs: Iterable[tuple[list[Cache], int]]) -> None:
    """Build the graph of one forward pass after another; the caches then have shapes and types but
    no values. The model is left as it was.

    Args:
        runs: The caches, and how many tokens the model is run on with them.

    Raises:
        EvaluationNeededError: The forward pass looks at values. The caches of the layers that it
            reached are filled.
    """

    def run(scalar: mx.array) -> None:
        model.update(
            tree_map(
                lambda array: mx.broadcast_to(scalar.astype(array.dtype), array.shape),
                model.parameters(),
            )
        )
        for caches, num_tokens in runs:
            model(mx.zeros((1, num_tokens), mx.int32), cache=caches)

    with left_as_it_was(model):
        refusing_evaluation(run, 1)


class _DoneError(Exception):
    """Leaves MLX's tracing context, whose result is of no use."""
