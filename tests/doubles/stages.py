"""What a stage worker does with the graph that a stage builds."""

import mlx.core as mx

from tbcluster.model.caches import Cache, state_arrays
from tbcluster.model.slicing import HiddenStates


def evaluate(result: HiddenStates | mx.array | None, cache: list[Cache]) -> None:
    """Compute what a visit produced and everything its caches hold. With a `result` of None only
    the caches are computed, which spares a prompt chunk the head."""
    outputs: list[mx.array] = []
    if isinstance(result, HiddenStates):
        outputs = [array for i, array in enumerate(result.arrays) if i in result.live]
    elif result is not None:
        outputs = [result]
    mx.eval(outputs, [state_arrays(entry) for entry in cache])
