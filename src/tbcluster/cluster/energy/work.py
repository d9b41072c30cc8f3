"""What models did between two looks at their statistics, by node. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tbcluster.cluster.opening import THIS_MACHINE
from tbcluster.cluster.stage_status import StageStatus
from tbcluster.engine.statistics import EngineStatistics

MICROSECONDS = 1e6


@dataclass(frozen=True, slots=True)
class Work:
    """Of one model on one node, in seconds.

    Attributes:
        compute_s: Of all its stages there together.
        active_s: In which steps were on their way: its busiest stage computed or waited for one.
    """

    compute_s: float = 0.0
    active_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelWork:
    """Of one model.

    Attributes:
        nodes: By their names; of nodes that it has stages on and that did nothing, too.
        num_tokens: That it generated.
    """

    nodes: Mapping[str, Work] = field(default_factory=dict)
    num_tokens: int = 0


class WorkCount:
    """Keeps what each model's statistics said last."""

    def __init__(self) -> None:
        self._last: dict[str, EngineStatistics] = {}

    def since_last(
        self, model: str, stages: Sequence[StageStatus], now: EngineStatistics
    ) -> ModelWork:
        """What was done since the last look. The first look at a model tells nothing yet, nor does
        one at counters that began again, or of other stages than before."""
        before = self._last.get(model)
        self._last[model] = now
        is_same = (
            before is not None
            and len(before.stages) == len(now.stages)
            and before.num_steps <= now.num_steps
        )
        if before is None or not is_same:
            return ModelWork()
        nodes: dict[str, Work] = {}
        for stage, was, is_now in zip(stages, before.stages, now.stages, strict=False):
            name = stage.node or THIS_MACHINE
            so_far = nodes.get(name, Work())
            compute_s = max(0, is_now.compute_us - was.compute_us) / MICROSECONDS
            wait_s = max(0, is_now.idle_us - was.idle_us) / MICROSECONDS
            nodes[name] = Work(
                so_far.compute_s + compute_s, max(so_far.active_s, compute_s + wait_s)
            )
        return ModelWork(nodes, max(0, now.num_generated_tokens - before.num_generated_tokens))

    def forget_others(self, models: Iterable[str]) -> None:
        """Only these are there."""
        self._last = {name: self._last[name] for name in models if name in self._last}
