from dataclasses import replace

import msgspec

from tbcluster.cluster.energy.watch import NodeWatts
from tbcluster.cluster.opening import THIS_MACHINE
from tbcluster.cluster.stage_status import StageState
from tbcluster.core import StageRange
from tbcluster.machine import Gauges, NodeState
from tbcluster.planner.plan import LeftOut, Plan, PlannedReplica, PlannedStage
from tbcluster.server.live.building import build_view
from tbcluster.server.live.facts import ModelFacts
from tbcluster.server.live.view import LiveLink, decode_view
from tests.server.live.facts import (
    NAMES,
    facts,
    link,
    node,
    rack,
    stage,
    statistics,
    status,
    way,
)


def test_a_node_shows_what_its_stages_hold() -> None:
    stages = (stage(0, "head", total_bytes=700), stage(1, "two", total_bytes=500))
    view = build_view(None, facts(model=ModelFacts(status(stages), statistics(2))))
    head, two, three = view.nodes
    assert (head.weight_bytes, head.kv_used_bytes, head.kv_budget_bytes) == (700, 100, 1000)
    assert (two.weight_bytes, three.weight_bytes) == (500, 0)
    assert (head.chip, head.memory_bytes, head.cpu_load) == ("Apple M4 Pro", 64 << 30, 0.25)
    assert [one.is_head for one in view.nodes] == [True, False, False]


def test_a_stage_that_died_holds_nothing_and_a_lost_node_has_no_gauges() -> None:
    stages = (stage(0, "head"), stage(1, "two", total_bytes=500, state=StageState.DEAD))
    lost = rack((node("head"), node("two", state=NodeState.OFFLINE, seconds_since_heard=7.0)))
    power = {name: NodeWatts(30.0, "zeus") for name in NAMES}
    view = build_view(
        None, facts(model=ModelFacts(status(stages), statistics(2)), rack=lost, power=power)
    )
    two = view.nodes[1]
    assert (two.state, two.weight_bytes, two.watts, two.cpu_load) == ("offline", 0, None, None)
    assert two.seconds_since_heard == 7.0
    # What is known of all that are there.
    assert view.watts == 30.0


def test_watts_are_told_only_where_all_are_known() -> None:
    some = {"head": NodeWatts(30.0, "zeus"), "two": NodeWatts(20.0, "estimate")}
    assert build_view(None, facts(power=some)).watts is None
    view = build_view(None, facts(power={**some, "three": NodeWatts(10.0, "zeus")}))
    assert (view.watts, view.is_estimate) == (60.0, True)


def test_one_machine_is_a_rack_of_one() -> None:
    alone = (stage(0, "", node=None, total_bytes=9),)
    here = (node(THIS_MACHINE, gauges=Gauges(1.0, available_bytes=3)),)
    view = build_view(
        None, facts(model=ModelFacts(status(alone), statistics(1)), rack=None, here=here)
    )
    (only,) = view.nodes
    assert (only.name, only.available_bytes, only.weight_bytes) == (THIS_MACHINE, 3, 9)
    assert view.models[0].stages[0].node == THIS_MACHINE
    assert view.links == ()


def test_links_are_one_for_each_pair_with_the_better_direction() -> None:
    links = (
        link("head", "two", way(20.0)),
        link("two", "head", way(38.0)),
        link("two", "three", way(9.0, "en0"), way(1.0)),
        link("head", "three"),
    )
    seen = build_view(None, facts(rack=rack(links=links))).links
    assert seen == (
        LiveLink("head", "two", "thunderbolt", True, True, 45.0, 38.0),
        LiveLink("two", "three", "ethernet", True, True, 45.0, 9.0),
    )


def test_a_link_without_a_way_is_down_and_one_without_stages_unused() -> None:
    links = (
        link("head", "two", way(20.0), dead=("en3",)),
        link("head", "three", way(20.0)),
    )
    stages = (stage(0, "head"), stage(1, "two"))
    model = ModelFacts(status(stages), statistics(2))
    down, unused = build_view(None, facts(model=model, rack=rack(links=links))).links
    assert (down.is_up, down.is_used) == (False, True)
    assert (unused.is_up, unused.is_used) == (True, False)
    offline = rack((node("head"), node("three", state=NodeState.OFFLINE)), links[1:])
    (gone,) = build_view(None, facts(rack=offline)).links
    assert not gone.is_up


def test_a_plan_is_told_with_its_reasons() -> None:
    planned = PlannedStage("head", StageRange(0, 4), 70, 20, 3, 5, 100, 0.004, 0.2, 0.0005)
    replica = PlannedReplica((planned,), 0.004, 0.005, 4096, 4, 50.0, 20.0, 900.0)
    plan = Plan("toy", (replica, replica), (LeftOut("two", "too slow"),), 8192, 8, ("why",))
    stages = (stage(0, "head", total_bytes=999),)
    view = build_view(None, facts(model=ModelFacts(status(stages), statistics(1), plan)))
    told = view.models[0].plan
    assert told is not None
    assert (told.tokens_per_s, told.stream_tokens_per_s, told.streams) == (100.0, 20.0, 8)
    assert (told.reasons, told.left_out) == (("why",), (("two", "too slow"),))
    assert [(one.replica, one.decode_ms, one.hop_ms) for one in told.stages] == [
        (0, 4.0, 0.5),
        (1, 4.0, 0.5),
    ]
    # What is planned is what is there; what was read may hold more.
    assert view.models[0].stages[0].weight_bytes == 70


def test_while_stages_load_they_hold_what_is_loaded() -> None:
    loading = stage(0, "head", state=StageState.LOADING, loaded_bytes=30, total_bytes=90)
    view = build_view(None, facts(model=ModelFacts(status((loading,)), None)))
    assert view.models[0].stages[0].weight_bytes == view.nodes[0].weight_bytes == 30


def test_paths_are_left_out_of_errors() -> None:
    failed = status(error="cannot read /Users/me/models/toy")
    view = build_view(None, facts(model=ModelFacts(failed)))
    assert "/Users" not in (view.models[0].error or "")


def test_a_view_survives_its_own_json() -> None:
    links = (link("head", "two", way(20.0)),)
    view = build_view(facts(9.0), facts(10.0, rack=rack(links=links)))
    assert decode_view(msgspec.json.encode(view)) == view
    other = msgspec.structs.replace(view, state="starting")
    assert decode_view(msgspec.json.encode(other)) == other != view


def test_no_words_tell_where_things_are_on_this_machine() -> None:
    path = "/Users/anna/models/toy"
    failed = replace(status(()), doing=f"reading {path}", error=f"{path} is not there")
    replica = PlannedReplica((), 0.004, 0.005, 4096, 4, 50.0, 20.0, 900.0)
    left_out = (LeftOut("two", f"{path} is full"),)
    plan = Plan("toy", (replica,), left_out, 8192, 8, (f"{path} fits",))
    view = build_view(
        None, replace(facts(model=ModelFacts(failed, plan=plan)), doing=f"loading {path}")
    )
    assert b"toy" in msgspec.json.encode(view)
    assert b"anna" not in msgspec.json.encode(view)
