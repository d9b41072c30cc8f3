"""One traced, never evaluated run of a whole model.

The model is run twice (a prompt of three tokens, then one) with every parameter replaced by a
broadcast of a scalar token of its layer. What an output depends on is then read from the graph.
Nothing is loaded or computed, so this takes the same fraction of a second for a toy and for 671B.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map_with_path
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.errors import UnsupportedModelError
from tbcluster.model.boundary import Structure, classes_in, flatten, mutable_arguments, unflatten
from tbcluster.model.caches import state_arrays
from tbcluster.model.experts import ExpertWatch
from tbcluster.model.graph import DependencyGraph
from tbcluster.model.head import HeadSearch, usual_head
from tbcluster.model.hooks import call_layer, hooked
from tbcluster.model.placeholders import EvaluationNeededError, left_as_it_was, refusing_evaluation
from tbcluster.model.trace import (
    TRACED_LENGTHS,
    BoundaryValue,
    HeadInput,
    LayerCall,
    ModelTrace,
    value_name,
)


def trace(model: nn.Module, fine_layers: Iterable[int] = ()) -> ModelTrace:
    """Trace a model whose parameters may all be lazy; it is left as it was.

    Args:
        fine_layers: Layers whose parameters are followed one by one instead of together.

    Raises:
        UnsupportedModelError: Its layers pass on something that cannot be sent.
    """
    tracer = _Tracer(model, frozenset(fine_layers))
    try:
        tracer.run()
    except EvaluationNeededError:
        return tracer.result_by_structure()
    return tracer.result()


def needed_parameters(model: nn.Module, traced: ModelTrace, start: int, end: int) -> set[str]:
    """Paths of all parameters that a stage of layers [start, end) reads."""
    needed, foreign = traced.needed(start, end)
    if foreign:
        needed, _ = trace(model, fine_layers=foreign).needed(start, end)
    return needed


@dataclass(slots=True)
class _Call:
    layer: int
    caches: tuple[int, ...]
    structure: Structure
    arrays: list[mx.array]


class _Tracer:
    """Observes the two runs and names what the graph must tell apart."""

    def __init__(self, model: nn.Module, fine_layers: frozenset[int]) -> None:
        self._model = model
        self._fine_layers = fine_layers
        self._layers = list(model.layers)
        self._index = {id(layer): i for i, layer in enumerate(self._layers)}
        self._parameters = dict(tree_flatten(model.parameters()))
        paths = {id(array): path for path, array in self._parameters.items()}
        self._layer_of = {
            paths[id(array)]: i
            for i, layer in enumerate(self._layers)
            for _, array in tree_flatten(layer.parameters())
        }
        self._runs: list[list[_Call]] = []
        self._cache_index: dict[int, int] = {}
        self._num_caches = 0
        self._graph: DependencyGraph | None = None
        self._vocab_size: int | None = None
        self._head_search = HeadSearch(model)
        self._experts = ExpertWatch(model)

    def run(self) -> None:
        tokens = sorted({self._token_of(path) for path in self._parameters})

        def traced(*scalars: mx.array) -> None:
            self._trace(dict(zip(tokens, scalars, strict=True)))

        try:
            with (
                left_as_it_was(self._model),
                hooked(self._layers, self),
                self._head_search.watching(),
                self._experts.watching(),
            ):
                refusing_evaluation(traced, len(tokens))
        except ValueError as error:
            raise UnsupportedModelError(f"mlx-lm's forward pass fails: {error}") from error

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = call_layer(layer, args, kwargs)
        dicts = mutable_arguments(args, kwargs)
        arrays: list[mx.array] = []
        structure = flatten((output, dicts), arrays)
        # stop_gradient makes each boundary value a node of its own in the graph.
        arrays = [mx.stop_gradient(array) for array in arrays]
        output, filled = unflatten(structure, arrays, classes_in(structure))
        for target, source in zip(dicts, filled, strict=True):
            target.update(source)
        caches = tuple(
            self._cache_index[id(value)]
            for value in (*args, *kwargs.values())
            if id(value) in self._cache_index
        )
        self._runs[-1].append(_Call(self._index[id(layer)], caches, structure, arrays))
        return output

    def result(self) -> ModelTrace:
        calls = [
            LayerCall(runs[0].layer, runs[0].caches, tuple(_boundary_value(c) for c in runs))
            for runs in zip(*self._runs, strict=True)
        ]
        assert self._graph is not None  # noqa: S101 - `run` has made both
        assert self._vocab_size is not None  # noqa: S101
        head = self._head_search.find(self._graph, self._vocab_size)
        return self._make(tuple(calls), self._graph, head)

    def result_by_structure(self) -> ModelTrace:
        """For a model that cannot be traced: layer i is call i with cache i, one array between."""
        caches = make_prompt_cache(self._model)
        if len(caches) != len(self._layers):
            raise UnsupportedModelError(
                "its forward pass evaluates values and its caches do not follow its layers"
            )
        self._num_caches = len(caches)
        value = BoundaryValue(["array", 0], ((1,),), (4,))
        calls = tuple(
            LayerCall(index, (index,), (value, value)) for index in range(len(self._layers))
        )
        return self._make(calls, None, usual_head(self._model))

    def _make(
        self,
        calls: tuple[LayerCall, ...],
        graph: DependencyGraph | None,
        head: HeadInput | None,
    ) -> ModelTrace:
        return ModelTrace(
            num_layers=len(self._layers),
            num_caches=self._num_caches,
            calls=calls,
            parameters=tuple(self._parameters),
            layer_of=self._layer_of,
            graph=graph,
            vocab_size=self._vocab_size,
            head=head,
            experts_used=self._experts.used,
        )

    def _token_of(self, path: str) -> str:
        layer = self._layer_of.get(path)
        coarse = layer is not None and layer not in self._fine_layers
        return f"layer {layer}" if coarse else f"param {path}"

    def _trace(self, tokens: dict[str, mx.array]) -> None:
        self._model.update(
            tree_map_with_path(
                lambda path, array: mx.broadcast_to(
                    tokens[self._token_of(path)].astype(array.dtype), array.shape
                ),
                self._model.parameters(),
            )
        )
        caches = make_prompt_cache(self._model)
        self._num_caches = len(caches)
        self._cache_index = {id(cache): i for i, cache in enumerate(caches)}
        named = dict(tokens)
        for run, length in enumerate(TRACED_LENGTHS):
            self._runs.append([])
            self._head_search.begin_run()
            self._experts.begin_run()
            output = self._model(mx.zeros((1, length), mx.int32), cache=caches)
            logits = output[0] if isinstance(output, tuple) else output
            # As a node of its own: the head search has named what the last module returned.
            named[f"output {run}"] = mx.stop_gradient(logits)
            self._vocab_size = logits.shape[-1]
            for index, call in enumerate(self._runs[-1]):
                for leaf, array in enumerate(call.arrays):
                    named[value_name(run, index, leaf)] = array
        for index, cache in enumerate(caches):
            if state := state_arrays(cache):
                named[f"cache {index}"] = mx.depends(mx.zeros(()), state)
        named |= self._head_search.named()
        self._graph = DependencyGraph(named)


def _boundary_value(call: _Call) -> BoundaryValue:
    shapes = tuple(tuple(array.shape) for array in call.arrays)
    return BoundaryValue(call.structure, shapes, tuple(array.itemsize for array in call.arrays))
