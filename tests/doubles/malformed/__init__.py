"""Clients that mean harm, or do not know better: what they send, and what they may be told.

Everything follows from a seed. An answer has to be a refusal in the shape of its path's dialect, or
the connection is closed; some requests are odd but right, and may be answered.
"""

import itertools
import random
from collections.abc import Callable, Iterator

from tests.doubles.malformed import constraints, fields, http, texts
from tests.doubles.malformed.attack import Attack, Behaviour
from tests.doubles.malformed.performing import Outcome, perform

__all__ = ["Attack", "Behaviour", "Outcome", "attacks", "perform"]

Maker = Callable[[random.Random, str, str], Attack]
MAKERS: dict[Maker, float] = {
    fields.wrong_type: 14,
    fields.wrong_number: 8,
    **texts.MAKERS,
    constraints.constraint: 6,
    **http.MAKERS,
}


def attacks(seed: int, count: int | None, model: str) -> Iterator[Attack]:
    """That many, or without end, on all endpoints of a server of this model. They are made one by
    one: some have megabytes."""
    source = random.Random(seed)
    makers, weights = list(MAKERS), list(MAKERS.values())
    for _ in itertools.count() if count is None else range(count):
        [maker] = source.choices(makers, weights)
        yield maker(source, source.choice(fields.PATHS), model)
