"""One traced, never evaluated run of a whole model: where it can be cut, and what each stage needs.

The model is run twice (a prompt of three tokens, then one) with every parameter replaced by a
broadcast of a scalar token of its layer. What an output depends on is then read from the graph.
Nothing is loaded or computed, so this takes the same fraction of a second for a toy and for 671B.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.errors import UnsupportedModelError
from tbcluster.model.boundary import Structure, classes_in, flatten, unflatten
from tbcluster.model.caches import state_arrays
from tbcluster.model.graph import DependencyGraph
from tbcluster.model.hooks import call_layer, hooked

TRACED_LENGTHS = (3, 1)
PREFILL, DECODE = range(2)


@dataclass(frozen=True, slots=True)
class BoundaryValue:
    """What a layer call returned: its structure, and shape and bytes of each array."""

    structure: Structure
    shapes: tuple[tuple[int, ...], ...]
    item_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One call of a layer during a step; `values` has an entry per traced run."""

    layer: int
    caches: tuple[int, ...]
    values: tuple[BoundaryValue, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut before one call.

    Attributes:
        leaked_layers: Earlier layers whose weights the later side would need.
        shared_caches: Caches that both sides would write.
        live: Which arrays of the boundary value anything later reads.
        growing: Those of them that grow with the context instead of with the step.
        bytes_per_token: Size of the live arrays in decode.
    """

    leaked_layers: tuple[int, ...]
    shared_caches: tuple[int, ...]
    live: tuple[int, ...]
    growing: tuple[int, ...]
    bytes_per_token: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Calls [start, end) that a stage runs without a hop in between."""

    start: int
    end: int


@dataclass
class ModelTrace:
    """What one step of a model does, call by call.

    Attributes:
        layer_of: Parameter path -> index of the layer that owns it; other parameters are absent.
        graph: None for a model that cannot be traced.
        vocab_size: Width of the logits; None for a model that cannot be traced.
    """

    num_layers: int
    num_caches: int
    calls: tuple[LayerCall, ...]
    parameters: tuple[str, ...]
    layer_of: dict[str, int]
    graph: DependencyGraph | None
    vocab_size: int | None = None
    _cuts: dict[int, Cut] = field(default_factory=dict)

    @property
    def num_visits(self) -> int:
        """How often one step passes through all layers (more than once in looped models)."""
        return sum(call.layer == 0 for call in self.calls)

    @cached_property
    def loose(self) -> frozenset[int]:
        """Caches that no layer call is given (an n-gram context, say): every stage keeps them."""
        given = {cache for call in self.calls for cache in call.caches}
        return frozenset(range(self.num_caches)) - given

    @cached_property
    def boundary_classes(self) -> frozenset[str]:
        """Names of the classes whose objects pass between layers."""
        values = [value for call in self.calls for value in call.values]
        return frozenset().union(*(classes_in(value.structure) for value in values))

    @cached_property
    def legal_cuts(self) -> tuple[int, ...]:
        """Layer indices before which the model can be cut with equal output and a boundary value
        whose size does not depend on the context."""
        return tuple(b for b in range(1, self.num_layers) if self._is_legal(b))

    @property
    def uncuttable_because(self) -> str | None:
        """In one sentence why this model has no legal cut, or None when it has one."""
        if self.legal_cuts:
            return None
        if not self.calls:
            return "its forward pass never calls its layers as modules"
        if self.num_layers == 1:
            return "it has a single layer"
        return "each of its layers shares weights or caches with another side of every cut"

    def cut(self, call: int) -> Cut:
        """What a cut before this call would mean."""
        if call not in self._cuts:
            self._cuts[call] = self._analyse_cut(call)
        return self._cuts[call]

    def cut_calls(self, boundary: int) -> list[int]:
        """The calls before which a cut at this layer index cuts the step."""
        layers = [call.layer for call in self.calls]
        return [
            index
            for index in range(1, len(layers))
            if (layers[index - 1] < boundary) != (layers[index] < boundary)
        ]

    def segments(self, start: int, end: int) -> list[Segment]:
        """The runs of consecutive calls that layers [start, end) make in one step."""
        found: list[Segment] = []
        for index, call in enumerate(self.calls):
            if not start <= call.layer < end:
                continue
            if found and found[-1].end == index:
                found[-1] = Segment(found[-1].start, index + 1)
            else:
                found.append(Segment(index, index + 1))
        return found

    def needed(self, start: int, end: int) -> tuple[set[str], frozenset[int]]:
        """Parameter paths that layers [start, end) need, and the foreign layers some of whose
        parameters are needed too (trace again with those as `fine_layers` to learn which)."""
        if start == 0 and end == self.num_layers:
            return set(self.parameters), frozenset()
        if self.graph is None:
            return self._needed_by_structure(start, end), frozenset()
        needed = {path for path, layer in self.layer_of.items() if start <= layer < end}
        foreign: set[int] = set()
        for segment in self.segments(start, end):
            outputs = self._outputs(segment.start, segment.end)
            for name in self.graph.sources(outputs, self._values_before(segment.start)):
                if name.startswith("param "):
                    needed.add(name.removeprefix("param "))
                elif name.startswith("layer "):
                    foreign.add(int(name.removeprefix("layer ")))
        return needed, frozenset(layer for layer in foreign if not start <= layer < end)

    def _is_legal(self, boundary: int) -> bool:
        cuts = [self.cut(call) for call in self.cut_calls(boundary)]
        # A looped model's later visits do use "earlier" layers: they are on their own stage then.
        leaks = self.num_visits == 1 and any(cut.leaked_layers for cut in cuts)
        return bool(cuts) and not leaks and not any(c.shared_caches or c.growing for c in cuts)

    def _analyse_cut(self, call: int) -> Cut:
        values = self.calls[call - 1].values
        if self.graph is None:
            return Cut((), (), tuple(range(len(values[DECODE].shapes))), (), 0)
        later, earlier = self.calls[call:], self.calls[:call]
        outputs = self._outputs(call, len(self.calls))
        reached = self.graph.sources(outputs, self._values_before(call))
        layers = {layer for name in reached if (layer := self._layer_named(name)) is not None}
        shared = {c for x in later for c in x.caches} & {c for x in earlier for c in x.caches}
        live = [
            leaf
            for leaf in range(len(values[DECODE].shapes))
            if _value_name(DECODE, call - 1, leaf) in reached
        ]
        prompt, one = values[PREFILL], values[DECODE]
        return Cut(
            leaked_layers=tuple(sorted(layers - {x.layer for x in later})),
            shared_caches=tuple(sorted(shared)),
            live=tuple(live),
            growing=tuple(leaf for leaf in live if _grows(prompt.shapes[leaf], one.shapes[leaf])),
            bytes_per_token=sum(math.prod(one.shapes[i]) * one.item_bytes[i] for i in live),
        )

    def _layer_named(self, name: str) -> int | None:
        kind, _, rest = name.partition(" ")
        if kind == "layer":
            return int(rest)
        return self.layer_of.get(rest) if kind == "param" else None

    def _outputs(self, start: int, end: int) -> list[str]:
        """What calls [start, end) must produce: the value they hand on, and their caches."""
        caches = {cache for call in self.calls[start:end] for cache in call.caches}
        return [*self._values_at(end), *(f"cache {cache}" for cache in caches)]

    def _values_at(self, end: int) -> list[str]:
        if end == len(self.calls):
            return [f"output {run}" for run in (PREFILL, DECODE)]
        return self._values_before(end)

    def _values_before(self, call: int) -> list[str]:
        if call == 0:
            return []
        return [
            _value_name(run, call - 1, leaf)
            for run, value in enumerate(self.calls[call - 1].values)
            for leaf in range(len(value.shapes))
        ]

    def _needed_by_structure(self, start: int, end: int) -> set[str]:
        at_an_end = start == 0 or end == self.num_layers
        return {
            path
            for path in self.parameters
            if (start <= self.layer_of[path] < end if path in self.layer_of else at_an_end)
        }


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
    except _EvaluationNeededError:
        return tracer.result_by_structure()
    return tracer.result()


def needed_parameters(model: nn.Module, traced: ModelTrace, start: int, end: int) -> set[str]:
    """Paths of all parameters that a stage of layers [start, end) reads."""
    needed, foreign = traced.needed(start, end)
    if foreign:
        needed, _ = trace(model, fine_layers=foreign).needed(start, end)
    return needed


class _EvaluationNeededError(Exception):
    """The forward pass looks at values, so it cannot be traced."""


class _TracedError(Exception):
    """Leaves MLX's tracing context, whose result is of no use."""


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

    def run(self) -> None:
        tokens = sorted({self._token_of(path) for path in self._parameters})

        def traced(*scalars: mx.array) -> mx.array:
            self._trace(dict(zip(tokens, scalars, strict=True)))
            raise _TracedError

        try:
            with hooked(self._layers, self):
                # Inside this context MLX refuses to evaluate, which is all it is used for.
                mx.export_function(lambda _: None, traced, *(mx.zeros(()) for _ in tokens))
        except _TracedError:
            pass
        except ValueError as error:
            if "eval" in str(error):
                raise _EvaluationNeededError from error
            raise UnsupportedModelError(f"mlx-lm's forward pass fails: {error}") from error
        finally:
            self._model.update(tree_unflatten(list(self._parameters.items())))

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
        return self._make(tuple(calls), self._graph)

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
        return self._make(calls, None)

    def _make(self, calls: tuple[LayerCall, ...], graph: DependencyGraph | None) -> ModelTrace:
        return ModelTrace(
            num_layers=len(self._layers),
            num_caches=self._num_caches,
            calls=calls,
            parameters=tuple(self._parameters),
            layer_of=self._layer_of,
            graph=graph,
            vocab_size=self._vocab_size,
        )

    def _token_of(self, path: str) -> str:
        layer = self._layer_of.get(path)
        coarse = layer is not None and layer not in self._fine_layers
        return f"layer {layer}" if coarse else f"param {path}"

    def _trace(self, tokens: dict[str, mx.array]) -> None:
        stand_ins = [
            (path, mx.broadcast_to(tokens[self._token_of(path)].astype(array.dtype), array.shape))
            for path, array in self._parameters.items()
        ]
        self._model.update(tree_unflatten(stand_ins))
        caches = make_prompt_cache(self._model)
        self._num_caches = len(caches)
        self._cache_index = {id(cache): i for i, cache in enumerate(caches)}
        named = dict(tokens)
        for run, length in enumerate(TRACED_LENGTHS):
            self._runs.append([])
            output = self._model(mx.zeros((1, length), mx.int32), cache=caches)
            logits = output[0] if isinstance(output, tuple) else output
            named[f"output {run}"] = logits
            self._vocab_size = logits.shape[-1]
            for index, call in enumerate(self._runs[-1]):
                for leaf, array in enumerate(call.arrays):
                    named[_value_name(run, index, leaf)] = array
        for index, cache in enumerate(caches):
            if state := state_arrays(cache):
                named[f"cache {index}"] = mx.depends(mx.zeros(()), state)
        self._graph = DependencyGraph(named)


def mutable_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[dict[Any, Any]]:
    """The plain dicts among a layer's arguments: layers hand values on by filling them in."""
    return [value for value in (*args, *kwargs.values()) if type(value) is dict]


def _boundary_value(call: _Call) -> BoundaryValue:
    shapes = tuple(tuple(array.shape) for array in call.arrays)
    return BoundaryValue(call.structure, shapes, tuple(array.itemsize for array in call.arrays))


def _value_name(run: int, call: int, leaf: int) -> str:
    return f"value {run}.{call}.{leaf}"


def _grows(prompt: tuple[int, ...], one: tuple[int, ...]) -> bool:
    first, then = TRACED_LENGTHS
    return math.prod(prompt) * then != math.prod(one) * first
