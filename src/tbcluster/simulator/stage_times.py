"""How long a stage computes on a step, for any step: the planner's cost model, remembered."""

from collections import Counter

from tbcluster.core import StageRange
from tbcluster.planner.cost import Load, attention_s, layer_s, matmul_flop_s, sampling_s, weights_s
from tbcluster.planner.nodes import NodeSpeed
from tbcluster.planner.profile import ModelProfile

# Contexts that differ by less cost the same.
CONTEXT_STEP = 32


class StageTimes:
    """Seconds of one visit to a stage. As `planner.cost.TimeCosts`, which is made for one load and
    all ranges, but for a prompt's chunks, after which nothing is sampled, and for contexts that
    differ by little."""

    def __init__(self, profile: ModelProfile, speed: NodeSpeed, layers: StageRange) -> None:
        self._profile = profile
        self._speed = speed
        self._flop_s = matmul_flop_s(speed, profile.weight_kind)
        own = profile.layers[layers.start : layers.end]
        self._fixed_s = speed.stage_s + sum(layer_s(part, speed) for part in own)
        self._kinds = Counter(own)
        self._kinds[profile.shared] += 1
        if layers.start == 0:
            self._kinds[profile.embedding] += 1
        self._is_last = layers.end == len(profile.layers)
        self._weights: dict[int, float] = {}
        self._attention: dict[tuple[int, int, int], float] = {}
        self._heads: dict[int, float] = {}

    def decode_s(self, rows: int, context: int) -> float:
        """A decode step of so many rows, each at a context of so many tokens."""
        return self._fixed_s + self._rows_s(rows) + self._context_s(rows, rows, context)

    def chunk_s(self, tokens: int, context: int) -> float:
        """A chunk of so many tokens of a prompt, after so many others."""
        # Nothing is sampled after it, and the head takes no part.
        return self._fixed_s + self._layers_s(tokens) + self._context_s(tokens, 1, context)

    def _rows_s(self, rows: int) -> float:
        return self._layers_s(rows) + (self._head_s(rows) if self._is_last else 0.0)

    def _layers_s(self, rows: int) -> float:
        known = self._weights.get(rows)
        if known is None:
            known = sum(
                number * weights_s(part, self._speed, rows) for part, number in self._kinds.items()
            )
            self._weights[rows] = known
        return known

    def _head_s(self, rows: int) -> float:
        known = self._heads.get(rows)
        if known is None:
            known = weights_s(self._profile.head, self._speed, rows)
            known += sampling_s(self._profile, self._speed, rows)
            self._heads[rows] = known
        return known

    def _context_s(self, rows: int, streams: int, context: int) -> float:
        key = rows, streams, context // CONTEXT_STEP
        known = self._attention.get(key)
        if known is None:
            load = Load(rows, 0, streams, context)
            known = sum(
                number * attention_s(part, self._speed, self._flop_s, load)
                for part, number in self._kinds.items()
            )
            self._attention[key] = known
        return known
