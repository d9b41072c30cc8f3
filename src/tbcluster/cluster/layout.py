"""Which node runs which layers, as a person writes it. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tbcluster.core import StageRange
from tbcluster.errors import PlanError

_PLACE = re.compile(r"(?P<node>[^=\s]+)=(?P<first>\d+)-(?P<last>\d+)")

# Of each replica its stages: a node, and the layers that it runs.
Layout = Sequence[Sequence[tuple[str, StageRange]]]


@dataclass(frozen=True, slots=True)
class PlacedRange:
    """A range of layers and the node that runs it."""

    node: str
    layers: StageRange


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


def layout_of(places: Sequence[PlacedRange]) -> Layout:
    """One replica with these stages, in the order of their layers; none without any."""
    ordered = sorted(places, key=lambda place: place.layers.start)
    return [[(place.node, place.layers) for place in ordered]] if ordered else []
