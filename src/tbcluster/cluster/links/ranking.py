"""Which of two paths is better, for a pipeline (pure)."""

import math
from collections.abc import Iterable, Sequence

from tbcluster.cluster.links.kinds import path_order
from tbcluster.machine import Interface, PathMeasurement

SMALL_BYTES = 8 * 1024
LARGE_BYTES = 8 * 1024 * 1024
# Hidden states of so many tokens of a prompt fill a large message (bfloat16, 8192 wide).
TOKENS_IN_LARGE = 512
# Two measurements of one path differ by this much.
TIE_RATIO = 1.05
BITS = 8


def token_cost_us(path: PathMeasurement) -> float:
    """Microseconds that a hop over this path adds to each token of a pipeline.

    A token that is decoded crosses it in a message of its own; a token of a prompt shares a large
    message with others:

        round_trip_us / 2 + time of 8 KB at small_gbps + time of 8 MB at large_gbps / 512

    Infinite for a path that does not get messages of either size across.
    """
    small_us = _time_us(SMALL_BYTES, path.small_gbps)
    large_us = _time_us(LARGE_BYTES, path.large_gbps)
    return path.round_trip_us / 2 + small_us + large_us / TOKENS_IN_LARGE


def best_first(
    paths: Iterable[PathMeasurement],
    local: Sequence[Interface] = (),
    remote: Sequence[Interface] = (),
) -> tuple[PathMeasurement, ...]:
    """The paths by `token_cost_us`, whatever their order was.

    Of those whose cost is within 5 % of the cheapest one that is left, the next is the one whose
    interfaces (`local` and `remote`, if known) are the better kind: Thunderbolt, Ethernet, Wi-Fi,
    others. So a path that is worse by more than 5 % in all three numbers never comes before.
    """
    left = sorted(paths, key=_by_cost)
    ordered: list[PathMeasurement] = []
    while left:
        limit = token_cost_us(left[0]) * TIE_RATIO
        tied = [path for path in left if token_cost_us(path) <= limit]
        best = min(tied, key=lambda path: path_order(path.path, local, remote))
        left.remove(best)
        ordered.append(best)
    return tuple(ordered)


def _by_cost(path: PathMeasurement) -> tuple[float, float, float, float, str, str, str]:
    way = path.path
    ends = (way.address, way.interface, way.remote_interface)
    figures = (path.round_trip_us, path.small_gbps, path.large_gbps)
    return (token_cost_us(path), *figures, *ends)


def _time_us(num_bytes: int, gbps: float) -> float:
    return num_bytes * BITS / (gbps * 1000) if gbps > 0 else math.inf
