"""What a group of machines would do that share each layer instead of the layers. Pure.

tbcluster does not run models so; the figures are for comparison. Each machine has its part of every
matrix, and after attention and after the feed-forward part all of them add up their results: two
collectives a layer, of which each takes its latency however small it is.
"""

from dataclasses import dataclass

from tbcluster.core import MAX_CHUNK_TOKENS, StageRange
from tbcluster.planner.cost import Load, TimeCosts, layer_s, transfer_s
from tbcluster.planner.nodes import NodeSpeed, PlanLink, PlanRack
from tbcluster.planner.profile import ModelProfile

COLLECTIVES_PER_LAYER = 2
# Of a few kilobytes among 2 to 4 Macs over RDMA, by two sets of published measurements that lie far
# apart: 67 to 155 us, and 237 to 383 us. Never their mean.
PRESETS = {"fast": PlanLink(110e-6, 6e9), "slow": PlanLink(300e-6, 6e9)}


@dataclass(frozen=True, slots=True)
class TensorParallel:
    """A model on equal machines.

    Attributes:
        speed: Of one machine.
        collective: An all-reduce: its latency, and the rate of what goes with each token.
    """

    profile: ModelProfile
    speed: NodeSpeed
    num_nodes: int
    collective: PlanLink

    def tokens_per_s(self, context: int) -> float:
        """Of one stream, at a context of so many tokens."""
        return 1 / self._step_s(Load(1, 1, 1, context))

    def prompt_tokens_per_s(self, num_tokens: int) -> float:
        """Of a prompt of so many tokens."""
        seconds = 0.0
        for begin in range(0, num_tokens, MAX_CHUNK_TOKENS):
            size = min(MAX_CHUNK_TOKENS, num_tokens - begin)
            seconds += self._step_s(Load(size, 1, 1, begin))
        return num_tokens / seconds

    def _step_s(self, load: Load) -> float:
        layers = self.profile.layers
        whole = TimeCosts(self.profile, self.speed, load).of(StageRange(0, len(layers)))
        # Started on each machine alike, however small its part is.
        once = self.speed.stage_s + sum(layer_s(part, self.speed) for part in layers)
        fixed = self.profile.num_visits * once
        together = self.collective.latency_s + transfer_s(self.collective, self.profile, load.rows)
        collectives = COLLECTIVES_PER_LAYER * len(layers) * self.profile.num_visits
        return fixed + (whole - fixed) / self.num_nodes + collectives * together


def tensor_parallel_groups(profile: ModelProfile, rack: PlanRack) -> dict[str, TensorParallel]:
    """All nodes of a rack as one group, by the name of the preset; none where they are not equal,
    are too few, or have too little memory together."""
    speeds = {node.speed for node in rack.nodes}
    number = len(rack.nodes)
    share = profile.weight_bytes / max(1, number)
    has_room = all(node.memory_bytes > share for node in rack.nodes)
    if number < 2 or len(speeds) > 1 or not has_room:
        return {}
    (speed,) = speeds
    return {
        name: TensorParallel(profile, speed, number, collective)
        for name, collective in PRESETS.items()
    }
