"""What a view is made from: the state of everything at one moment."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tbcluster.cluster.energy.watch import NodeWatts
from tbcluster.cluster.status import ClusterStatus
from tbcluster.engine.statistics import EngineStatistics
from tbcluster.machine import NodeView, RackView
from tbcluster.planner.plan import Plan


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that is loaded or being loaded; statistics are None while it has no engine."""

    status: ClusterStatus
    statistics: EngineStatistics | None = None
    plan: Plan | None = None
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything, as the parts tell it.

    Attributes:
        at: Unix time, seconds.
        now: A clock that only goes on, seconds.
        rack: None for one machine alone.
        here: This machine as if it were a node, where there is no rack.
        power: By node; none for those of which nothing is known.
    """

    at: float
    now: float
    version: str
    state: str
    doing: str | None = None
    default_model: str | None = None
    loadable: tuple[str, ...] = ()
    models: Mapping[str, ModelFacts] = field(default_factory=dict)
    rack: RackView | None = None
    here: tuple[NodeView, ...] = ()
    power: Mapping[str, NodeWatts] = field(default_factory=dict)
    joules_per_token: float | None = None
