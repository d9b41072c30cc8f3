"""What one step of a model does, call by call, and what that means for cutting it. Pure.

`tracer.trace` makes a `ModelTrace`; this module answers from it where the model can be cut, what
crosses a cut, and which parameters each stage needs.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

from tbcluster.model.boundary import Structure, classes_in
from tbcluster.model.graph import DependencyGraph

# Prompt lengths of the traced runs.
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
class HeadInput:
    """Where the hidden states after a model's last norm can be taken: what its head is given.

    Attributes:
        path: Of a module that is called once in a forward pass.
        method: Of that module's; an embedding that is also the head has `as_linear`.
        is_argument: Whether they are the first argument of that call, or what it returns.
    """

    path: str
    method: str
    is_argument: bool


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
        head: None where the forward pass hands its hidden states to no module.
        experts_used: Path of a stack of routed experts -> how many of them one token uses.
    """

    num_layers: int
    num_caches: int
    calls: tuple[LayerCall, ...]
    parameters: tuple[str, ...]
    layer_of: dict[str, int]
    graph: DependencyGraph | None
    vocab_size: int | None = None
    head: HeadInput | None = None
    experts_used: dict[str, int] = field(default_factory=dict)
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

    @property
    def no_embeddings_because(self) -> str | None:
        """In one sentence why this model gives no embeddings, or None when it does."""
        if self.head is not None:
            return None
        return "its last hidden states cannot be told apart from what else it computes"

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
            if value_name(DECODE, call - 1, leaf) in reached
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
            value_name(run, call - 1, leaf)
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


def value_name(run: int, call: int, leaf: int) -> str:
    return f"value {run}.{call}.{leaf}"


def _grows(prompt: tuple[int, ...], one: tuple[int, ...]) -> bool:
    first, then = TRACED_LENGTHS
    return math.prod(prompt) * then != math.prod(one) * first
