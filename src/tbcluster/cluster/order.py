"""What is to be served, as whoever starts a model says it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import Layout
from tbcluster.cluster.saved_preparation import SavedPreparation
from tbcluster.planner.plan import Wishes


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be served, and how.

    Attributes:
        source: A folder, a Hugging Face id, or None for the bundled model.
        name: What clients call it; None for what its source is called.
        by_hand: Who runs what, where a person says so.
        taken_bytes: What other models hold, by node.
        taken_now: The same whenever it is asked, once the model is loaded; None for always
            `taken_bytes`.
        memory_bytes: The most that models may take on this machine; None for what MLX says.
        measures_speed, shortens_context: See `Cluster`.
        saved: How a coordinator before this one had prepared it.
    """

    source: str | Path | None = None
    name: str | None = None
    kv: KvOptions = field(default_factory=KvOptions)
    wishes: Wishes = field(default_factory=Wishes)
    by_hand: Layout = ()
    taken_bytes: Mapping[str, int] = field(default_factory=dict)
    taken_now: Callable[[], Mapping[str, int]] | None = None
    memory_bytes: int | None = None
    measures_speed: bool = False
    shortens_context: bool = False
    saved: SavedPreparation | None = None
