"""Layers -> stages. Pure."""

from collections.abc import Sequence
from itertools import pairwise

from tbcluster.core import StageRange
from tbcluster.errors import PlanError


def even_split(num_layers: int, legal_cuts: tuple[int, ...], num_stages: int) -> list[StageRange]:
    """As even a split as the legal cuts allow: the largest stage is as small as can be.

    Args:
        legal_cuts: Layer indices before which the model may be cut, ascending.

    Raises:
        PlanError: There are not enough legal cuts for so many stages.
    """
    if num_stages < 1:
        raise PlanError(f"{num_stages} stages: ask for 1 or more")
    if num_stages - 1 > len(legal_cuts):
        raise PlanError(
            f"{num_stages} stages are too many: this model of {num_layers} layers can be cut into "
            f"at most {len(legal_cuts) + 1}"
        )
    bounds = _best_bounds(num_layers, legal_cuts, num_stages)
    return [StageRange(start, end) for start, end in pairwise(bounds)]


def _best_bounds(num_layers: int, legal_cuts: tuple[int, ...], num_stages: int) -> list[int]:
    """Dynamic programming over cuts: `best[cut]` is (largest stage, sum of squares, bounds) of the
    best split of the layers before `cut` into the stages placed so far."""
    best: dict[int, tuple[int, int, list[int]]] = {0: (0, 0, [0])}
    for stage in range(num_stages):
        ends = (num_layers,) if stage == num_stages - 1 else legal_cuts
        following: dict[int, tuple[int, int, list[int]]] = {}
        for end in ends:
            options = [
                (max(largest, end - start), squares + (end - start) ** 2, [*bounds, end])
                for start, (largest, squares, bounds) in best.items()
                if start < end
            ]
            if options:
                following[end] = min(options)
        best = following
    return best[num_layers][2]


def check_ranges(ranges: Sequence[StageRange], num_layers: int, legal_cuts: Sequence[int]) -> None:
    """Whether stages with these layers, in this order, are the model.

    Raises:
        PlanError: A layer is missing, unknown or in two stages, or the model cannot be cut there.
    """
    last = StageRange(0, 0)
    for layers in ranges:
        if layers.end > num_layers:
            unknown = StageRange(max(layers.start, num_layers), layers.end)
            raise PlanError(
                f"{_named(unknown, 'does', 'do')} not exist: the model has layers "
                f"0-{num_layers - 1}, and a stage was given {_range(layers)}"
            )
        if layers.start < last.end:
            shared = StageRange(layers.start, min(last.end, layers.end))
            raise PlanError(
                f"{_named(shared, 'is', 'are')} in two stages, {_range(last)} and "
                f"{_range(layers)}: each layer belongs to one"
            )
        _check_gap(last.end, layers.start, num_layers)
        if last.end and last.end not in legal_cuts:
            legal = ", ".join(map(str, legal_cuts)) or "nowhere"
            raise PlanError(
                f"this model cannot be cut before layer {last.end}; it can be cut before: {legal}"
            )
        last = layers
    _check_gap(last.end, num_layers, num_layers)


def _named(layers: StageRange, of_one: str, of_more: str) -> str:
    """With the verb: "layer 6 is", "layers 6-9 are"."""
    is_one = layers.end - layers.start == 1
    return f"layer {layers.start} {of_one}" if is_one else f"layers {layers} {of_more}"


def _range(layers: StageRange) -> str:
    """ "6", "6-9"."""
    return str(layers.start) if layers.end - layers.start == 1 else str(layers)


def _check_gap(start: int, end: int, num_layers: int) -> None:
    if start < end:
        missing = StageRange(start, end)
        raise PlanError(
            f"{_named(missing, 'is', 'are')} in no stage: the model has layers 0-{num_layers - 1}; "
            f"add a stage for {'it' if end - start == 1 else 'them'}, or widen one beside"
        )
