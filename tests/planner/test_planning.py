"""Whole plans: what always holds, what wishes change, and what is said where it does not fit."""

import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tbcluster.core import CacheCost, StageRange
from tbcluster.errors import DoesNotFitError, PlanError
from tbcluster.planner.cost import Promise, decode_load
from tbcluster.planner.nodes import PlanLink, PlanRack
from tbcluster.planner.partition import even_split
from tbcluster.planner.plan import DEFAULT_CONTEXT, Plan, PlannedReplica, Wishes
from tbcluster.planner.planning import make_plan, plan_by_hand
from tbcluster.planner.predict import Placed, memory_shortage, trip
from tbcluster.planner.profile import ModelProfile, PartProfile
from tests.planner.racks import LAYER, MB, model, models, node, rack, racks

wishes_of_all_kinds = st.builds(
    Wishes,
    context=st.sampled_from([None, 256, 4096]),
    streams=st.integers(1, 5),
    stages=st.sampled_from([None, None, 1, 2, 3]),
    replicas=st.sampled_from([None, None, 1, 2]),
)


def planned(profile: ModelProfile, on: PlanRack, wishes: Wishes) -> Plan | None:
    """The plan; None if it does not fit or there is no way."""
    try:
        return make_plan(profile, on, wishes)
    except PlanError:
        return None


def nodes_of(replica: PlannedReplica) -> list[str]:
    return [stage.node for stage in replica.stages]


def used_bytes(plan: Plan) -> Counter[str]:
    used: Counter[str] = Counter()
    for replica in plan.replicas:
        for stage in replica.stages:
            used[stage.node] += stage.used_bytes
    return used


@settings(max_examples=150, deadline=None)
@given(models(), racks(), wishes_of_all_kinds)
def test_what_holds_for_every_plan(profile: ModelProfile, on: PlanRack, wishes: Wishes) -> None:
    plan = planned(profile, on, wishes)
    if plan is None:
        return
    for replica in plan.replicas:
        layers = [stage.layers for stage in replica.stages]
        assert layers[0].start == 0
        assert layers[-1].end == len(profile.layers)
        assert all(before.end == after.start for before, after in pairwise(layers))
        assert {stage.start for stage in layers[1:]} <= set(profile.legal_cuts)
        if wishes.stages is not None:
            assert len(layers) == wishes.stages
        if len(layers) <= len(on.nodes):
            assert len(set(nodes_of(replica))) == len(layers)
        assert replica.longest_context >= plan.context or replica.longest_context % 256 == 0
        assert replica.slowest_s <= replica.step_s * replica.streams
    memory = {one.name: one.memory_bytes for one in on.nodes}
    for name, size in used_bytes(plan).items():
        assert size <= memory[name]
    left = {out.node for out in plan.left_out}
    assert left == set(memory) - set(used_bytes(plan))
    assert len(plan.replicas) == (wishes.replicas or len(plan.replicas))
    assert plan.streams == sum(replica.streams for replica in plan.replicas)
    if wishes.context is not None:
        assert plan.context == wishes.context


@settings(max_examples=100, deadline=None)
@given(models(), racks(), st.integers(1, 5))
def test_never_worse_than_an_even_split(profile: ModelProfile, on: PlanRack, streams: int) -> None:
    """Over the same nodes in the same order: by the slowest stage or link, then by the trip."""
    plan = planned(profile, on, Wishes(context=512, streams=streams, replicas=1))
    assume(plan is not None)
    assert plan is not None
    nodes = {one.name: one for one in on.nodes}
    replica = plan.replicas[0]
    names = nodes_of(replica)
    promise = Promise(512, streams)
    even = [
        Placed(nodes[name], layers)
        for name, layers in zip(
            names, even_split(len(profile.layers), profile.legal_cuts, len(names)), strict=True
        )
    ]
    if memory_shortage(profile, [(even, promise)]):
        return
    ours = [Placed(nodes[stage.node], stage.layers) for stage in replica.stages]
    best, other = (
        trip(profile, on, stages, decode_load(promise, len(names))) for stages in (ours, even)
    )
    assert best.slowest_s <= other.slowest_s
    if best.slowest_s == other.slowest_s:
        assert best.total_s <= other.total_s * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(models(), racks(), st.integers(1, 4))
def test_by_hand_gives_the_same_figures(profile: ModelProfile, on: PlanRack, streams: int) -> None:
    wishes = Wishes(context=512, streams=streams, replicas=1)
    plan = planned(profile, on, wishes)
    assume(plan is not None)
    assert plan is not None
    given_by_hand = [[(stage.node, stage.layers) for stage in plan.replicas[0].stages]]
    assert plan_by_hand(profile, on, wishes, given_by_hand).replicas == plan.replicas


@settings(max_examples=80, deadline=None)
@given(models(), racks(), st.integers(1, 4))
def test_what_is_missing_is_enough(profile: ModelProfile, on: PlanRack, streams: int) -> None:
    """And hardly more: with a tenth less, neither all nodes nor the largest would do."""
    wishes = Wishes(context=2048, streams=streams)
    try:
        make_plan(profile, on, wishes)
    except DoesNotFitError as error:
        missing = error.missing_bytes
    except PlanError:
        return
    else:
        return
    assert planned(profile, larger(on, missing), wishes) or planned(
        profile, larger(on, missing, only_largest=True), wishes
    )
    less = missing * 9 // 10
    assert planned(profile, larger(on, less), wishes) is None
    assert planned(profile, larger(on, less, only_largest=True), wishes) is None


def larger(on: PlanRack, more: int, *, only_largest: bool = False) -> PlanRack:
    largest = max(on.nodes, key=lambda one: one.memory_bytes)
    nodes = tuple(
        replace(one, memory_bytes=one.memory_bytes + more // (1 if only_largest else len(on.nodes)))
        if one is largest or not only_largest
        else one
        for one in on.nodes
    )
    return replace(on, nodes=nodes)


def test_faster_nodes_get_more_layers() -> None:
    on = rack(node("a", 500, is_head=True), node("b", 500, slowness=3))
    plan = make_plan(model(24), on, Wishes(stages=2, replicas=1, context=256))
    sizes = {s.node: s.layers.end - s.layers.start for s in plan.replicas[0].stages}
    assert sizes == {"a": 18, "b": 6}


def test_a_node_that_only_slows_it_down_is_left_out() -> None:
    on = rack(node("a", 500, is_head=True), node("snail", 500, slowness=40))
    plan = make_plan(model(12), on, Wishes(context=256))
    assert nodes_of(plan.replicas[0]) == ["a"]
    (left,) = plan.left_out
    assert left.node == "snail"
    assert "with 2 nodes 4 streams would get" in left.because


def test_nodes_that_cannot_be_used_say_why() -> None:
    small, far = node("small", 1), node("far", 500)
    linked = rack(node("a", 500, is_head=True), small, far)
    links = {pair: link for pair, link in linked.links.items() if "far" not in pair}
    plan = make_plan(model(4), PlanRack(linked.nodes, links), Wishes(context=256))
    assert {out.node: out.because for out in plan.left_out} == {
        "far": "there is no way between a and it",
        "small": "its 1 MiB for models hold no layer of this model",
    }


def test_the_order_follows_good_links() -> None:
    """Only a-b, b-c and c-a are near: any order but that ring has a slow hop."""
    nodes = [node("a", 110, is_head=True), *(node(name, 110) for name in "bcd")]
    far, near = PlanLink(5e-3, 1e9), PlanLink(1e-4, 1e9)
    good = {("a", "c"), ("c", "b"), ("b", "d"), ("d", "a")}
    on = rack(*nodes)
    links = {pair: near if pair in good else far for pair in on.links}
    plan = make_plan(
        model(16), PlanRack(on.nodes, links), Wishes(context=256, stages=4, replicas=1)
    )
    names = nodes_of(plan.replicas[0])
    assert set(pairwise([*names, names[0]])) == good


def test_copies_where_each_node_can_hold_one() -> None:
    """Far nodes are of no use to one copy, and of much to two."""
    on = rack(node("a", 900, is_head=True), node("b", 900), latency_s=0.05)
    plan = make_plan(model(12), on, Wishes(context=256, streams=8))
    assert list(map(nodes_of, plan.replicas)) == [["a"], ["b"]]
    assert sum(replica.streams for replica in plan.replicas) == 8
    assert plan.reasons[0].startswith("2 replicas: ")


def test_equal_nodes_have_a_copy_each_the_head_first() -> None:
    on = rack(*(node(name, 900, is_head=name == "b") for name in "abc"))
    plan = make_plan(model(12), on, Wishes(context=256))
    assert nodes_of(plan.replicas[0]) == ["b"]
    assert sorted(map(nodes_of, plan.replicas)) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("num_stages", [1, 2])
def test_stages_alone_are_those_of_one_copy(num_stages: int) -> None:
    on = rack(*(node(name, 900, is_head=name == "a") for name in "abcd"))
    wishes = Wishes(context=256, stages=num_stages)
    (replica,) = make_plan(model(12), on, wishes).replicas
    assert len(replica.stages) == num_stages
    copies = make_plan(model(12), on, replace(wishes, replicas=2)).replicas
    assert [len(copy.stages) for copy in copies] == [num_stages] * 2


def test_that_memory_asks_for_several_nodes_is_told() -> None:
    large = rack(node("a", 900, is_head=True), node("b", 900))
    small = rack(node("a", 130, is_head=True), *(node(name, 130) for name in "bc"))
    told = "no node holds all of it: 2 do together"
    assert told in make_plan(model(12), small, Wishes(context=256, streams=1)).reasons
    assert told not in make_plan(model(12), large, Wishes(context=256, streams=1)).reasons


def test_no_context_is_the_default_or_what_fits() -> None:
    much = make_plan(model(4), rack(node("a", 900, is_head=True)), Wishes())
    assert (much.context, much.streams) == (DEFAULT_CONTEXT, 4)
    short = make_plan(model(4, context_length=1024), rack(node("a", 900, is_head=True)), Wishes())
    assert short.context == 1024
    for memory_mb in (150, 230):
        on = rack(node("a", memory_mb, is_head=True))
        less = make_plan(model(4), on, Wishes())
        assert 256 <= less.context < DEFAULT_CONTEXT
        assert less.context % 256 == 0
        assert f"4 streams of {less.context:,} tokens: more does not fit" in less.reasons[0]
        with pytest.raises(DoesNotFitError):
            make_plan(model(4), on, Wishes(context=less.context + 256))
    assert less.context > DEFAULT_CONTEXT / 2
    fewest = make_plan(model(4), rack(node("a", 91, is_head=True)), Wishes())
    assert fewest.context == 256
    assert 1 <= fewest.streams < 4


def test_the_longest_context_is_what_fits() -> None:
    on = rack(node("a", 200, is_head=True), node("b", 200))
    profile = model(8, context_length=None)
    plan = make_plan(profile, on, Wishes(context=256))
    longest = plan.replicas[0].longest_context
    layout = [[(stage.node, stage.layers) for stage in plan.replicas[0].stages]]
    plan_by_hand(profile, on, Wishes(context=longest, streams=1), layout)
    with pytest.raises(DoesNotFitError):
        plan_by_hand(profile, on, Wishes(context=longest + 256, streams=1), layout)


def test_more_stages_than_nodes() -> None:
    here = rack(node("", 900, is_head=True))
    plan = make_plan(model(11), here, Wishes(context=256, stages=3))
    ranges = [stage.layers for stage in plan.replicas[0].stages]
    assert ranges == even_split(11, tuple(range(1, 11)), 3)
    assert set(nodes_of(plan.replicas[0])) == {""}
    assert plan.reasons == ("3 stages side by side on this machine",)
    two = rack(node("a", 900, is_head=True), node("b", 900))
    names = nodes_of(make_plan(model(11), two, Wishes(context=256, stages=5)).replicas[0])
    assert sorted(Counter(names).values()) == [2, 3]
    assert names in (sorted(names), sorted(names, reverse=True))


def test_more_replicas_than_nodes_share_them() -> None:
    here = rack(node("", 900, is_head=True))
    plan = make_plan(model(8), here, Wishes(context=256, streams=4, stages=2, replicas=2))
    assert [nodes_of(replica) for replica in plan.replicas] == [["", ""]] * 2
    assert plan.streams == 4
    assert {stage.memory_bytes for replica in plan.replicas for stage in replica.stages} == {
        900 * MB
    }
    assert used_bytes(plan)[""] <= 900 * MB
    alone = make_plan(model(8), here, Wishes(context=256, streams=4, stages=2))
    assert plan.replicas[0].slowest_s > 1.5 * alone.replicas[0].slowest_s


def test_kv_memory_by_hand_decides_what_is_promised() -> None:
    here = rack(node("", 900, is_head=True))
    # A stage has 4 layers of 1000 bytes a token, 4 streams: 16000 a token, rounded up twice.
    wishes = Wishes(stages=2, kv_memory_bytes=16_000 * 1536)
    plan = make_plan(model(8), here, wishes)
    assert plan.context == 1024
    assert {stage.kv_bytes for stage in plan.replicas[0].stages} == {16_000 * 1536}
    assert make_plan(model(8), here, replace(wishes, context=1024)).context == 1024
    too_long = replace(wishes, context=1280)
    layout = [[("", StageRange(0, 4)), ("", StageRange(4, 8))]]
    for attempt in (
        lambda: make_plan(model(8), here, too_long),
        lambda: plan_by_hand(model(8), here, too_long, layout),
    ):
        with pytest.raises(DoesNotFitError, match="hold 4 streams of 1,024 tokens, not of 1,280"):
            attempt()


def test_by_hand_replicas_on_one_node_slow_each_other_down() -> None:
    on = rack(node("a", 900, is_head=True))
    asked = make_plan(model(8), on, Wishes(context=256, streams=4, stages=1, replicas=2))
    layout = [[(stage.node, stage.layers) for stage in r.stages] for r in asked.replicas]
    by_hand = plan_by_hand(model(8), on, Wishes(context=256, streams=4), layout)
    assert [r.slowest_s for r in by_hand.replicas] == [r.slowest_s for r in asked.replicas]
    assert used_bytes(by_hand) == pytest.approx(used_bytes(asked))


def test_a_tied_embedding_gets_smaller_with_the_rest() -> None:
    """What is said to fit with fewer bits does."""
    part = PartProfile(60 * MB, 2 * MB)
    tied = model(4, embedding=replace(part, lookup_bytes=60 * MB), head=part, tied_bytes=60 * MB)
    on = rack(node("a", 84, is_head=True))
    with pytest.raises(DoesNotFitError) as caught:
        make_plan(tied, on, Wishes(context=256, streams=1))
    (text,) = [text for text in caught.value.remedies if "weights of" in text]
    bits = int(text.split("weights of ")[1].split()[0])
    assert 100 * MB * (bits + 0.5) / 16 < 84 * MB
    assert f"about {100 * (bits + 0.5) / 16 * MB / 2**20:.1f} MiB" in text


def test_remedies_are_true() -> None:
    profile = model(8, layers=(replace(LAYER, caches=(CacheCost(0, 4000),)),) * 8)
    on = rack(node("a", 400, is_head=True))
    wishes = Wishes(context=8192, streams=4)
    with pytest.raises(DoesNotFitError) as caught:
        make_plan(profile, on, wishes)
    error = caught.value
    told = re.search(r"it needs (\S+) MiB .* a has (\S+) MiB .* (\S+) MiB too", error.message)
    assert told is not None
    needed, room, lacks = (float(figure.replace(",", "")) for figure in told.groups())
    assert round(needed - room, 1) == lacks > 0
    texts = list(error.remedies)
    context = int(texts[0].removeprefix("a context of ").split()[0].replace(",", ""))
    assert make_plan(profile, on, replace(wishes, context=context)).context == context
    assert planned(profile, on, replace(wishes, context=context + 256)) is None
    number = int(texts[-1].split()[0])
    assert texts[-1] == f"{number} more nodes like a (381.5 MiB for models) would do"
    more = [node(f"b{at}", 400) for at in range(number)]
    assert planned(profile, rack(*on.nodes, *more), wishes)
    assert planned(profile, rack(*on.nodes, *more[1:]), wishes) is None


def test_fewer_bits_and_nodes_that_are_offline() -> None:
    profile = model(20)
    on = replace(rack(node("a", 150, is_head=True)), offline=(node("away", 200),))
    with pytest.raises(DoesNotFitError) as caught:
        make_plan(profile, on, Wishes(context=256, streams=1))
    assert any("weights of 6 bits" in text for text in caught.value.remedies)
    assert "it would fit with away, which is offline now" in caught.value.remedies


def test_too_many_streams() -> None:
    profile = model(4, layers=(replace(LAYER, caches=(CacheCost(0, 4000),)),) * 4)
    on = rack(node("a", 220, is_head=True))
    with pytest.raises(DoesNotFitError) as caught:
        make_plan(profile, on, Wishes(context=2048, streams=6))
    (text,) = [text for text in caught.value.remedies if "--streams" in text]
    streams = int(text.split()[0])
    assert make_plan(profile, on, Wishes(context=2048, streams=streams)).streams == streams
    assert planned(profile, on, Wishes(context=2048, streams=streams + 1)) is None


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (Wishes(context=0), "0 tokens of context: ask for 1 to"),
        (Wishes(streams=0), "^0 streams: ask for 1 to 4,096"),
        (Wishes(replicas=-1), "^-1 replicas"),
        (Wishes(stages=0), "0 stages: ask for 1 or more"),
        (Wishes(stages=9), "9 stages are too many: .* at most 4"),
        (Wishes(context=40000), "a context of 40,000 tokens: model was made for 32,768 at most"),
        (Wishes(streams=10**15), "1,000,000,000,000,000 streams: ask for 1 to 4,096"),
        (Wishes(context=10**18), "1,000,000,000,000,000,000 tokens of context: ask for 1 to"),
    ],
)
def test_wishes_that_cannot_be_met(wishes: Wishes, words: str) -> None:
    on = rack(node("a", 500, is_head=True))
    with pytest.raises(PlanError, match=words):
        make_plan(model(4), on, wishes)
    if wishes.stages is None:
        with pytest.raises(PlanError, match=words):
            plan_by_hand(model(4), on, wishes, [[("a", StageRange(0, 4))]])


def test_what_would_not_help_is_not_listed_as_help() -> None:
    on = rack(node("a", 60, is_head=True), node("b", 30))
    with pytest.raises(
        DoesNotFitError, match=r"a and b have 85\.8 MiB for models together"
    ) as told:
        make_plan(model(100), on, Wishes(context=256, streams=1))
    assert told.value.remedies[-1] == (
        "larger nodes, or a smaller model: not even 8 more like a (57.2 MiB for models) are enough"
    )


@pytest.mark.parametrize(
    ("num_layers", "slowness", "told"),
    [
        (150, 1, "layers are shared out so that every stage takes about "),
        (36, 1, "c is the slowest with 128 ms a step; others take 123 ms"),
        (36, 1.9, "c is the slowest with 154 ms a step; others take 135 ms to 148 ms"),
    ],
)
def test_why_says_what_the_slowest_stage_is_once(
    num_layers: int, slowness: float, told: str
) -> None:
    on = rack(node("a", 900, is_head=True), node("b", 900, slowness), node("c", 900))
    plan = make_plan(model(num_layers), on, Wishes(context=256, streams=3, stages=3))
    (line,) = [line for line in plan.reasons if " a step" in line and "order" not in line]
    assert line.startswith(told)


def test_why_names_those_without_room() -> None:
    on = rack(node("a", 900, is_head=True), node("b", 60))
    wishes = Wishes(context=256, streams=2, stages=2)
    assert "b has no room for more layers" in make_plan(model(12), on, wishes).reasons
    on = rack(node("a", 900, is_head=True), node("b", 40))
    with pytest.raises(DoesNotFitError, match="too little is where it is needed"):
        make_plan(model(12), on, wishes)


def test_no_way_is_no_lack_of_memory() -> None:
    on = PlanRack((node("a", 90, is_head=True), node("b", 90)), {})
    with pytest.raises(PlanError, match="whatever the memory: a and b cannot reach each other"):
        make_plan(model(8), on, Wishes(context=256, stages=2, streams=1))


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ([], "without replicas"),
        (
            [[("a", StageRange(0, 2)), ("c", StageRange(2, 4))]],
            "node 'c'; nodes that can be used: a and b",
        ),
        ([[("a", StageRange(0, 2))]], "layers 2-3 are in no stage"),
        ([[("b", StageRange(0, 4))]], "a cannot reach b"),
    ],
)
def test_by_hand_is_checked(layout: list[list[tuple[str, StageRange]]], words: str) -> None:
    on = PlanRack((node("a", 500, is_head=True), node("b", 500)), {})
    with pytest.raises(PlanError, match=words):
        plan_by_hand(model(4), on, Wishes(), layout)


def test_what_is_wrong_with_a_plan_file_names_it() -> None:
    on = rack(node("a", 30, is_head=True))
    wishes = Wishes(context=256, plan_file="my.json")
    for name, end, words in (
        ("a", 3, "^the plan my.json cannot be used: layer 3 is in no stage"),
        ("c", 4, "^the plan my.json cannot be used: there is no node 'c'"),
        ("a", 4, "^the plan my.json does not fit: a lacks"),
    ):
        with pytest.raises(PlanError, match=words):
            plan_by_hand(model(4), on, wishes, [[(name, StageRange(0, end))]])
    with pytest.raises(PlanError, match=r"^the plan my.json cannot be used: a context of 99,999 "):
        plan_by_hand(model(4), on, replace(wishes, context=99_999), [[("a", StageRange(0, 4))]])


def test_by_hand_counts_what_replicas_take_together() -> None:
    on = rack(node("a", 200, is_head=True))
    layout = [[("a", StageRange(0, 8))]]
    assert plan_by_hand(model(8), on, Wishes(context=256), layout).is_by_hand
    with pytest.raises(DoesNotFitError, match="a lacks") as caught:
        plan_by_hand(model(8), on, Wishes(context=256), layout * 2)
    assert 0 < caught.value.missing_bytes < 200 * MB
