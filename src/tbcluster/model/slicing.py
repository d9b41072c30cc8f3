"""A stage: layers [start, end) of an unmodified mlx-lm model.

The whole model is built lazily and its own forward pass runs, with its layers hooked: calls before
the stage's first return what the previous stage sent, owned calls run, and after the last owned
call the forward pass is left. What lies outside (embedding, masks, head) is graph that is never
evaluated on a stage that does not need it, so its weights are never read.
"""

from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.errors import PlanError, StageError, WireError
from tbcluster.model.boundary import Structure, flatten, mutable_arguments, unflatten
from tbcluster.model.caches import Cache, Signature, advance_ghost, signature
from tbcluster.model.head import BeforeHead
from tbcluster.model.hooks import call_layer, hook
from tbcluster.model.quantized import fresh_caches
from tbcluster.model.trace import ModelTrace, Segment


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """The value a stage hands on: a structure and its arrays. Arrays whose index is not in `live`
    are read by nothing later and need not be sent."""

    structure: Structure
    arrays: list[mx.array]
    live: frozenset[int]


class _ForwardLeft(Exception):  # noqa: N818 - control flow, not an error
    """The stage's last owned call is done."""


class StageModel:
    """Layers [start, end) of `model`, which must not be used otherwise from then on.

    A stage that owns all layers runs the model as it is, without hooks.

    Args:
        kv_bits: 8 or 4 for quantized KV caches (see `quantized.check_quantized`), None for plain.
    """

    def __init__(
        self,
        model: nn.Module,
        traced: ModelTrace,
        start: int,
        end: int,
        kv_bits: int | None = None,
    ) -> None:
        if not 0 <= start < end <= traced.num_layers:
            raise PlanError(f"no layers [{start}, {end}) in a model of {traced.num_layers}")
        self._model = model
        self._trace = traced
        self._kv_bits = kv_bits
        self._before_head = BeforeHead(model, traced.head) if traced.head is not None else None
        self._is_whole = start == 0 and end == traced.num_layers
        self._layer_index = {id(layer): i for i, layer in enumerate(model.layers)}
        self.segments = self._find_segments(start, end)
        self._layout = None if self._is_whole else _CacheLayout(model, traced, self.segments)
        if not self._is_whole:
            hook(list(model.layers), self)
        self._segment = self.segments[0]
        self._next_call = 0
        self._starts_early = False
        self._incoming: tuple[Any, list[dict[Any, Any]]] | None = None
        self._outgoing: tuple[Any, list[dict[Any, Any]]] | None = None

    def make_cache(self) -> list[Cache]:
        """Empty caches for one sequence, for this stage's calls."""
        caches = fresh_caches(self._model, self._kv_bits)
        if self._layout is None:
            return caches
        kept = [caches[i] for i in self._layout.kept]
        if self._layout.ghosts:
            # Their one-element arrays cannot be quantized, and only their bookkeeping is read.
            plain = fresh_caches(self._model)
            for ghost in self._layout.ghosts:
                kept[ghost] = plain[self._layout.kept[ghost]]
        return kept

    def forward(
        self,
        tokens: mx.array,
        cache: list[Cache],
        incoming: HiddenStates | None = None,
        visit: int = 0,
        *,
        starts_early: bool = False,
        stops_at_head: bool = False,
    ) -> HiddenStates | mx.array:
        """Build the graph of one visit; the caller computes it, and what `cache` holds then.

        Args:
            tokens: Token ids (num_sequences, num_tokens); every stage gets them.
            cache: From `make_cache`; advanced by the last visit of a step.
            incoming: What the previous stage handed on; None for the first call of a step.
            visit: Which of the stage's segments to run.
            starts_early: Let MLX compute the first layer while the graph of the others is built.
            stops_at_head: Let the last segment return what its head would be given.

        Returns:
            Hidden states, or logits (num_sequences, num_tokens, vocabulary) from the last segment,
            or (num_sequences, num_tokens, width) where it stops at the head.

        Raises:
            StageError: The model has no head that could be stopped at.
            WireError: `incoming` is missing or does not fit this model.
        """
        if self._layout is None:
            return self._run(tokens, cache, stops_at_head)
        self._segment = self.segments[visit]
        self._next_call = 0
        self._starts_early = starts_early
        self._outgoing = None
        self._incoming = self._unpack(incoming)
        view = [cache[index] for index in self._layout.views[visit]]
        try:
            result: HiddenStates | mx.array = self._run(tokens, view, stops_at_head)
        except _ForwardLeft:
            result = self._pack()
        finally:
            self._incoming = self._outgoing = None
        if visit == len(self.segments) - 1:
            for index in self._layout.ghosts:
                advance_ghost(cache[index], *tokens.shape[:2])
        return result

    def _run(self, tokens: mx.array, cache: list[Cache], stops_at_head: bool) -> mx.array:
        if not stops_at_head:
            logits: mx.array = _first(self._model(tokens, cache=cache))
            return logits
        if self._before_head is None:
            raise StageError("this model gives no embeddings")
        return self._before_head(tokens, cache)

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One layer call of the running forward pass (see `hooks.LayerObserver`)."""
        call = self._next_call
        self._next_call += 1
        if self._trace.calls[call].layer != self._layer_index[id(layer)]:
            raise PlanError(f"call {call} of this step went to another layer than when traced")
        if call < self._segment.start:
            return self._return_incoming(args, kwargs)
        output = call_layer(layer, args, kwargs)
        if call == self._segment.start and self._starts_early:
            mx.async_eval(output)  # type: ignore[no-untyped-call]
        if call == self._segment.end - 1 and self._segment.end < len(self._trace.calls):
            self._outgoing = output, mutable_arguments(args, kwargs)
            raise _ForwardLeft
        return output

    def _return_incoming(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        assert self._incoming is not None  # noqa: S101 - `_unpack` has seen to it
        value, dicts = self._incoming
        for target, source in zip(mutable_arguments(args, kwargs), dicts, strict=True):
            target.clear()
            target.update(source)
        return value

    def _find_segments(self, start: int, end: int) -> list[Segment]:
        if self._is_whole:
            return [Segment(0, len(self._trace.calls))]
        return self._trace.segments(start, end)

    def _unpack(self, incoming: HiddenStates | None) -> tuple[Any, list[dict[Any, Any]]] | None:
        if incoming is not None:
            classes = self._trace.boundary_classes
            pair = unflatten(incoming.structure, incoming.arrays, classes)
            if not (isinstance(pair, tuple) and len(pair) == 2):
                raise WireError("the boundary value is no pair of an output and filled-in dicts")
            return pair
        if self._segment.start > 0:
            raise WireError("no hidden states came for a stage that is not the first")
        return None

    def _pack(self) -> HiddenStates:
        arrays: list[mx.array] = []
        structure = flatten(self._outgoing, arrays)
        cut = self._trace.cut(self._segment.end)
        traced = self._trace.calls[self._segment.end - 1].values[0]
        as_traced = len(arrays) == len(traced.shapes)
        live = cut.live if as_traced else range(len(arrays))
        return HiddenStates(structure, arrays, frozenset(live))


class _CacheLayout:
    """Which of the model's caches a stage keeps, and what each call sees in place of the others.

    Attributes:
        kept: Indices into the model's full list, one for each cache the stage keeps.
        ghosts: Positions in `kept` of those that hold no layer's data.
        views: Per segment, for each entry of the full list, which position in `kept` stands for it.
    """

    def __init__(self, model: nn.Module, traced: ModelTrace, segments: list[Segment]) -> None:
        self._signatures = [signature(cache) for cache in make_prompt_cache(model)]
        per_segment = [
            {cache for call in traced.calls[s.start : s.end] for cache in call.caches}
            for s in segments
        ]
        self.kept = sorted(traced.loose.union(*per_segment))
        self.ghosts: list[int] = []
        self._position = {cache: i for i, cache in enumerate(self.kept)}
        self._ghost_of: dict[Signature, int] = {}
        self.views = [self._view(owned, owned | traced.loose) for owned in per_segment]

    def _view(self, owned: set[int], visible: set[int]) -> list[int]:
        alias: dict[Signature, int] = {}
        for cache in sorted(owned):
            alias.setdefault(self._signatures[cache], self._position[cache])

        def stand_in(cache: int, kind: Signature) -> int:
            if cache in visible:
                return self._position[cache]
            return alias[kind] if kind in alias else self._ghost(cache)

        return [stand_in(cache, kind) for cache, kind in enumerate(self._signatures)]

    def _ghost(self, cache: int) -> int:
        kind = self._signatures[cache]
        if kind not in self._ghost_of:
            self._ghost_of[kind] = len(self.kept)
            self.ghosts.append(len(self.kept))
            self.kept.append(cache)
        return self._ghost_of[kind]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output
