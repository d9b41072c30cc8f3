"""Paths between nodes."""

from dataclasses import replace

import pytest

from tbcluster.cluster.doctor.check import check_rack
from tbcluster.cluster.doctor.finding import Finding, Status, can_serve
from tbcluster.machine import LinkView, NodeState, RackView
from tests.doubles.racks import both_ways, cabled, measured, node, port, rack

NODES = (node("mini1"), node("mini2"))
THREE = (*NODES, node("mini3"))


def found(view: RackView, check: str = "path") -> list[Finding]:
    return [f for f in check_rack(view) if f.name == check]


def no_way(source: str, target: str) -> LinkView:
    return LinkView(f"id-{source}", f"id-{target}")


@pytest.mark.parametrize(
    ("interface", "facts", "status", "words"),
    [
        ("en0", {}, Status.OK, "to mini2 over Ethernet (en0): 300 us, 8.0 Gb/s"),
        ("en0", {"gbps": 0.93}, Status.OK, "930 Mb/s"),
        ("en0", {"gbps": 0.094}, Status.WARNING, "94 Mb/s: a poor rate for Ethernet"),
        ("en0", {"round_trip_us": 12000.0}, Status.WARNING, "12.0 ms, 8.0 Gb/s: a poor round trip"),
        ("en1", {}, Status.WARNING, "over Wi-Fi (en1)"),
        # Radio at the other end alone is radio.
        ("en0", {"remote": "en1"}, Status.WARNING, "over Wi-Fi (en0)"),
        ("utun4", {"gbps": 0.01, "round_trip_us": 9000.0}, Status.OK, "another kind (utun4)"),
    ],
)
def test_the_path_that_is_used(
    interface: str, facts: dict[str, float], status: Status, words: str
) -> None:
    view = rack(*NODES, links=both_ways("mini1", "mini2", interface, **facts))
    findings = found(view)
    assert [f.node for f in findings] == ["mini1", "mini2"]
    assert findings[0].status is status
    assert words in findings[0].detail
    assert (findings[0].fix is None) == (status is Status.OK)
    assert can_serve(check_rack(view))


def test_thunderbolt_is_held_to_more() -> None:
    nodes = (
        cabled("mini1", port("mini1", 1, "mini2/1")),
        cabled("mini2", port("mini2", 1, "mini1/1")),
    )
    slow = both_ways("mini1", "mini2", "en2", gbps=0.9)
    assert "a poor rate for Thunderbolt" in found(rack(*nodes, links=slow))[0].detail
    fast = both_ways("mini1", "mini2", "en2", gbps=1.1)
    assert found(rack(*nodes, links=fast))[0].status is Status.OK


def test_two_nodes_without_a_way_cannot_serve() -> None:
    links = (no_way("mini1", "mini2"), *both_ways("mini1", "mini2")[1:])
    view = rack(*NODES, links=links)
    assert [f.status for f in found(view)] == [Status.FAILED, Status.OK]
    assert "no way to mini2: none of its addresses answers" in found(view)[0].detail
    assert "tbcluster links --measure" in (found(view)[0].fix or "")
    assert not can_serve(check_rack(view))


def test_a_third_node_may_lie_between_two_without_a_way() -> None:
    links = (
        no_way("mini1", "mini2"),
        no_way("mini2", "mini1"),
        *both_ways("mini1", "mini3"),
        *both_ways("mini2", "mini3"),
    )
    view = rack(*THREE, links=links)
    warned = [(f.node, f.detail[:15]) for f in found(view) if f.status is Status.WARNING]
    assert warned == [("mini1", "no way to mini2"), ("mini2", "no way to mini1")]
    assert can_serve(check_rack(view))


def test_a_node_that_nobody_reaches_is_cut_off() -> None:
    links = (
        *both_ways("mini1", "mini2"),
        no_way("mini1", "mini3"),
        no_way("mini2", "mini3"),
        measured("mini3", "mini1"),
        measured("mini3", "mini2"),
    )
    view = rack(*THREE, links=links)
    assert [f.node for f in found(view) if f.status is Status.FAILED] == ["mini1", "mini2"]
    assert not can_serve(check_rack(view))


def test_a_dead_path_is_told_and_another_is_used() -> None:
    best = measured("mini1", "mini2", address="192.0.2.7")
    second = measured("mini1", "mini2", "en1", address="198.51.100.7")
    link = replace(best, paths=(*best.paths, *second.paths), dead=("192.0.2.7",))
    view = rack(*NODES, links=(link,))
    [finding] = found(view, "dead-path")
    assert finding.status is Status.WARNING
    assert "192.0.2.7 (en0) does not answer any more" in finding.detail
    assert "over Wi-Fi (en1)" in found(view)[0].detail


def test_a_link_whose_every_path_is_dead_is_no_way() -> None:
    link = replace(measured("mini1", "mini2"), dead=("192.0.2.10",))
    view = rack(*NODES, links=(link,))
    assert found(view, "dead-path") == []
    assert "no path answers any more" in found(view)[0].detail


def test_links_of_nodes_that_are_away_are_not_judged() -> None:
    away = replace(NODES[1], state=NodeState.OFFLINE)
    view = rack(NODES[0], away, links=(no_way("mini1", "mini2"),))
    assert found(view) == []


def test_what_was_not_measured_is_said() -> None:
    [finding] = found(rack(*THREE, links=both_ways("mini1", "mini2")), "measured")
    assert (finding.status, finding.fix) == (Status.OK, "tbcluster links --measure")
    assert "4 of 6" in finding.detail
    assert found(rack(*NODES, links=both_ways("mini1", "mini2")), "measured") == []
