"""Which node runs which layers: an even split over the nodes, or a list given by hand. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tbcluster.core import StageRange
from tbcluster.errors import PlanError
from tbcluster.planner.partition import check_ranges, even_split

_PLACE = re.compile(r"(?P<node>[^=\s]+)=(?P<first>\d+)-(?P<last>\d+)")


@dataclass(frozen=True, slots=True)
class Site:
    """A node that stages may be placed on; `limit_bytes` is what models may take there."""

    name: str
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class PlacedRange:
    """A range of layers and the node that runs it."""

    node: str
    layers: StageRange


@dataclass(frozen=True, slots=True)
class Spread:
    """The nodes that stages may be placed on, and where they go if that is given by hand."""

    sites: tuple[Site, ...]
    by_hand: tuple[PlacedRange, ...] = ()


def parse_place(text: str) -> PlacedRange:
    """`NODE=FIRST-LAST`, both layers included, as a person writes it.

    Raises:
        PlanError: It is something else.
    """
    found = _PLACE.fullmatch(text.strip())
    if found is None:
        raise PlanError(f"{text!r} is no placement: write NODE=FIRST-LAST, such as mini2=16-31")
    first, last = int(found["first"]), int(found["last"])
    if last < first:
        raise PlanError(f"{text!r}: the last layer comes before the first")
    return PlacedRange(found["node"], StageRange(first, last + 1))


def placed_by_hand(
    places: Sequence[PlacedRange], num_layers: int, legal_cuts: Sequence[int]
) -> list[PlacedRange]:
    """These, in the order of their layers, once it is clear that they can be run.

    Raises:
        PlanError: They do not hold each layer once, or cut where the model may not be cut.
    """
    ordered = sorted(places, key=lambda place: place.layers.start)
    check_ranges([place.layers for place in ordered], num_layers, legal_cuts)
    return ordered


def split_over(
    sites: Sequence[Site], num_stages: int | None, num_layers: int, legal_cuts: tuple[int, ...]
) -> list[PlacedRange]:
    """An even split; neighbouring stages share a node where there are more stages than nodes.

    Args:
        num_stages: None for one on each node, or as many as the layers allow.

    Raises:
        PlanError: There are not enough legal cuts for so many stages.
    """
    wanted = num_stages or min(len(sites), len(legal_cuts) + 1)
    ranges = even_split(num_layers, legal_cuts, wanted)
    used = min(wanted, len(sites))
    return [
        PlacedRange(sites[stage * used // wanted].name, layers)
        for stage, layers in enumerate(ranges)
    ]
