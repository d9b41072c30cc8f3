"""What a model asks of the machines it runs on, part by part, before any of it is loaded.

Everything comes from the config, the headers of the weight files (if there are any) and the
traced, never computed run: sizes of parameters in the type they are computed in, which of them each
part of the model reads, how many experts a token uses, what crosses a cut, what KV caches take.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
from mlx.utils import tree_flatten

from tbcluster.core import CacheCost
from tbcluster.model.attention_cost import attention_costs
from tbcluster.model.cache_facts import layer_cache_costs
from tbcluster.model.experts import experts_by_config, switch_linears
from tbcluster.model.facts import InspectedModel
from tbcluster.model.head import AS_LINEAR
from tbcluster.model.sources import weight_files
from tbcluster.model.trace import ModelTrace
from tbcluster.model.weights import Weight, weights_of
from tbcluster.planner.profile import AttentionCost, ModelProfile, PartProfile

# What configs call the width of the hidden states.
WIDTHS = ("hidden_size", "d_model", "n_embd")

NO_ATTENTION = AttentionCost()


def profile_of(inspected: InspectedModel, name: str, kv_bits: int | None = None) -> ModelProfile:
    """Profile an opened model, whose weight files may hold nothing but headers, or not be there.

    Args:
        name: What it is called.
        kv_bits: 8 or 4 for quantized KV caches, None for plain ones.

    Raises:
        UnsupportedModelError: The architecture does not allow quantized KV caches.
    """
    inspected.check_kv_bits(kv_bits)
    folder, model, traced = inspected.folder, inspected.opened.model, inspected.traced
    weights = weights_of(model)
    places = _Places.of(traced, weights)
    experts = _Experts.of(inspected)
    layer_caches, shared_caches = layer_cache_costs(model, traced, kv_bits)
    attention = attention_costs(folder.config, traced, layer_caches)
    layers = tuple(
        _part(_in_layer(traced, weights, layer), experts, caches, attention=cost)
        for layer, (caches, cost) in enumerate(zip(layer_caches, attention, strict=True))
    )
    return ModelProfile(
        name=name,
        architecture=str(folder.config["model_type"]),
        layers=layers,
        embedding=_part((weights[path] for path in places.embedding), experts),
        head=_part((weights[path] for path in places.head), experts, are_tables_read=True),
        shared=_part((weights[path] for path in places.shared), experts, shared_caches),
        hidden_bytes=_hidden_bytes(inspected),
        legal_cuts=traced.legal_cuts,
        context_length=folder.context_length,
        num_visits=inspected.facts.num_visits,
        vocab_size=inspected.facts.vocab_size,
        weight_kind=_main_kind(weights.values()),
        file_bytes=_file_bytes(inspected),
        num_parameters=sum(weight.num_values for weight in weights.values()),
        active_parameters=sum(experts.values_used(weight) for weight in weights.values()),
        tied_bytes=sum(weights[path].num_bytes for path in places.embedding & places.head),
    )


@dataclass(frozen=True, slots=True)
class _Places:
    """Which parameters outside the layers stage 0, the last stage and every stage hold."""

    embedding: frozenset[str]
    head: frozenset[str]
    shared: frozenset[str]

    @classmethod
    def of(cls, traced: ModelTrace, weights: Mapping[str, Weight]) -> "_Places":
        """Cut at every legal place: what the first stage then needs is the embedding's, what the
        last one needs the head's, and what stages in between need counts for every stage."""
        outside = {path for path in weights if path not in traced.layer_of}
        if not traced.legal_cuts:
            return cls._uncut(traced, weights, outside)
        bounds = (0, *traced.legal_cuts, traced.num_layers)
        first, *between, last = (
            traced.needed(start, end)[0] & outside for start, end in pairwise(bounds)
        )
        shared = frozenset().union(*between)
        # What no stage needs is still read by a stage of all layers: with the head.
        unused = outside - first - last - shared
        return cls(frozenset(first - shared), frozenset(last - shared | unused), shared)

    @classmethod
    def _uncut(
        cls, traced: ModelTrace, weights: Mapping[str, Weight], outside: set[str]
    ) -> "_Places":
        tables = frozenset(path for path in outside if weights[path].is_table)
        head = traced.head
        is_tied = head is not None and head.method == AS_LINEAR
        return cls(tables, frozenset(outside if is_tied else outside - tables), frozenset())


@dataclass(frozen=True, slots=True)
class _Experts:
    """How many of the routed experts of each stack one token uses."""

    used: Mapping[str, int]

    @classmethod
    def of(cls, inspected: InspectedModel) -> "_Experts":
        """As the traced run has shown, else as the config says, else all of them."""
        traced = inspected.traced.experts_used
        usual = experts_by_config(inspected.folder.config)
        stacks = switch_linears(inspected.opened.model)
        return cls(
            {
                path: min(traced.get(path, usual or stack.num_experts), stack.num_experts)
                for path, stack in stacks.items()
            }
        )

    def of_token(self, weight: Weight) -> int:
        """Experts of this weight's stack that one token uses; 0 if it belongs to none."""
        return self.used[weight.module] if weight.num_experts else 0

    def values_used(self, weight: Weight) -> int:
        """Values of this weight that one token uses."""
        if not weight.num_experts:
            return weight.num_values
        return weight.num_values * self.of_token(weight) // weight.num_experts


def _in_layer(traced: ModelTrace, weights: Mapping[str, Weight], layer: int) -> list[Weight]:
    return [weights[path] for path, owner in traced.layer_of.items() if owner == layer]


def _part(
    weights: Iterable[Weight],
    experts: _Experts,
    caches: tuple[CacheCost, ...] = (),
    *,
    attention: AttentionCost = NO_ATTENTION,
    are_tables_read: bool = False,
) -> PartProfile:
    """Weights together.

    Args:
        are_tables_read: Whether embeddings are multiplied with, as a head does, instead of looked
            up row by row.
    """
    weights = list(weights)
    routed = [weight for weight in weights if weight.num_experts]
    tables = [weight for weight in weights if weight.is_table and not are_tables_read]
    matrices = [w for w in weights if w.is_matrix and (are_tables_read or not w.is_table)]
    largest = max(routed, key=lambda weight: weight.num_bytes, default=None)
    return PartProfile(
        weight_bytes=sum(weight.num_bytes for weight in weights),
        flops=2 * sum(experts.values_used(weight) for weight in matrices),
        expert_bytes=sum(weight.num_bytes for weight in routed),
        num_experts=largest.num_experts if largest else 0,
        experts_per_token=experts.of_token(largest) if largest else 0,
        lookup_bytes=sum(weight.num_bytes for weight in tables),
        caches=caches,
        attention=attention,
    )


def _file_bytes(inspected: InspectedModel) -> int:
    """Of its weight files; without any, what its parameters would take in them."""
    opened = inspected.opened
    if not opened.tensors:
        return sum(array.nbytes for array in opened.parameters.values())
    return sum(file.stat().st_size for file in weight_files(inspected.folder.path))


def _hidden_bytes(inspected: InspectedModel) -> int:
    traced = inspected.traced
    sizes = [
        traced.cut(call).bytes_per_token
        for boundary in traced.legal_cuts
        for call in traced.cut_calls(boundary)
    ]
    return max(sizes, default=0) or _usual_hidden_bytes(inspected)


def _usual_hidden_bytes(inspected: InspectedModel) -> int:
    """For a model that cannot be cut or traced: one array as wide as its config says."""
    config = inspected.folder.config
    text_config = config.get("text_config") or {}
    widths = (part.get(key) for part in (text_config, config) for key in WIDTHS)
    width = next((width for width in widths if isinstance(width, int)), 0)
    arrays = (array for _, array in tree_flatten(inspected.opened.model.parameters()))
    floating = (array for array in arrays if mx.issubdtype(array.dtype, mx.floating))
    item_bytes = max((array.itemsize for array in floating), default=4)
    return width * item_bytes


def _main_kind(weights: Iterable[Weight]) -> str:
    """The kind that most bytes are of."""
    num_bytes: Counter[str] = Counter()
    for weight in weights:
        num_bytes[weight.kind] += weight.num_bytes
    return num_bytes.most_common(1)[0][0]
