"""Small models and racks for the planner's tests, and every way to place one on the other."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise, permutations

from hypothesis import strategies as st

from tbcluster.core import CacheCost, StageRange
from tbcluster.errors import PlanError
from tbcluster.planner.cost import Promise, decode_load
from tbcluster.planner.nodes import NodeSpeed, PlanLink, PlanNode, PlanRack
from tbcluster.planner.predict import Placed, Trip, memory_shortage, trip
from tbcluster.planner.profile import ModelProfile, PartProfile

MB = 10**6
SPEED = NodeSpeed(((1, 1e-9), (8, 2e-9)), 1e-4, 2e-4, 1e-9)
LAYER = PartProfile(10 * MB, 4 * MB, caches=(CacheCost(0, 1000),))
NOTHING = PartProfile(0, 0)


def model(num_layers: int, **changes: object) -> ModelProfile:
    """A dense model of equal layers of 10 MB that may be cut anywhere."""
    profile = ModelProfile(
        name="model",
        architecture="llama",
        layers=(LAYER,) * num_layers,
        embedding=PartProfile(5 * MB, 0, lookup_bytes=5 * MB),
        head=PartProfile(5 * MB, 2 * MB),
        shared=NOTHING,
        hidden_bytes=1000,
        legal_cuts=tuple(range(1, num_layers)),
        context_length=32768,
        num_visits=1,
        vocab_size=1000,
        weight_kind="float16",
        file_bytes=0,
        num_parameters=0,
        active_parameters=0,
    )
    return replace(profile, **changes)  # type: ignore[arg-type]


def node(name: str, memory_mb: float, slowness: float = 1.0, *, is_head: bool = False) -> PlanNode:
    """A node that takes so many times as long as others."""
    rates = tuple((rows, rate * slowness) for rows, rate in SPEED.rates)
    speed = replace(SPEED, rates=rates, layer_s=SPEED.layer_s * slowness)
    return PlanNode(name, int(memory_mb * MB), speed, is_head)


def rack(*nodes: PlanNode, latency_s: float = 1e-4, bytes_per_s: float = 1e9) -> PlanRack:
    """All of them linked in the same way."""
    link = PlanLink(latency_s, bytes_per_s)
    names = [one.name for one in nodes]
    return PlanRack(nodes, dict.fromkeys(permutations(names, 2), link))


@st.composite
def models(draw: st.DrawFn, max_layers: int = 7) -> ModelProfile:
    """Unequal layers, some with experts or windows; any cuts; some models are looped."""
    sizes = st.integers(1, 20)
    layers = []
    for _ in range(draw(st.integers(1, max_layers))):
        size = draw(sizes) * MB
        cache = CacheCost(draw(sizes) * 1000, draw(sizes) * 100, draw(st.sampled_from([None, 500])))
        experts = (size // 2, 8, 2) if draw(st.booleans()) else (0, 0, 0)
        layers.append(PartProfile(size, size // 2, *experts, caches=(cache,)))
    cuts = draw(st.sets(st.integers(1, max(1, len(layers) - 1)), max_size=len(layers)))
    part = draw(sizes) * MB
    return model(
        len(layers),
        layers=tuple(layers),
        legal_cuts=tuple(sorted(cut for cut in cuts if cut < len(layers))),
        embedding=PartProfile(part, 0, lookup_bytes=part),
        head=PartProfile(part + draw(sizes) * MB, MB),
        shared=PartProfile(draw(sizes) * 1000, 1000),
        num_visits=draw(st.sampled_from([1, 1, 1, 2])),
        tied_bytes=draw(st.sampled_from([0, part])),
    )


@st.composite
def racks(draw: st.DrawFn, max_nodes: int = 4) -> PlanRack:
    """Nodes of few sizes and speeds, so that some are equal; some links are slow or missing."""
    nodes = []
    for at in range(draw(st.integers(1, max_nodes))):
        memory = draw(st.sampled_from([60, 100, 200, 600]))
        nodes.append(node(f"n{at}", memory, draw(st.sampled_from([1, 1, 2, 5])), is_head=at == 0))
    # Near, slow with little latency, far and fast, none; or all alike, so that nodes may be equal.
    near, slow, far = PlanLink(1e-4, 1e9), PlanLink(1e-5, 5e4), PlanLink(5e-2, 1e9)
    kinds = draw(
        st.sampled_from([[near], [slow], [near, slow, far], [near, near, slow, far, None]])
    )
    links = {}
    for one, other in permutations(nodes, 2):
        link = draw(st.sampled_from(kinds))
        if link is not None:
            links[one.name, other.name] = link
    return PlanRack(tuple(nodes), links)


def ranges(profile: ModelProfile, num_stages: int) -> Iterator[list[StageRange]]:
    """Every way to cut the model into so many stages."""
    for cuts in combinations(profile.legal_cuts, num_stages - 1):
        yield [StageRange(*pair) for pair in pairwise((0, *cuts, len(profile.layers)))]


def placements(
    profile: ModelProfile, on: PlanRack, promise: Promise, num_stages: int
) -> Iterator[tuple[tuple[Placed, ...], Trip]]:
    """Every placement of so many stages on nodes of their own that has the memory and links."""
    load = decode_load(promise, num_stages)
    for nodes in permutations(on.nodes, num_stages):
        for layers in ranges(profile, num_stages):
            stages = tuple(map(Placed, nodes, layers))
            if memory_shortage(profile, [(stages, promise)]):
                continue
            try:
                yield stages, trip(profile, on, stages, load)
            except PlanError:
                break  # a link is missing, wherever the model is cut
