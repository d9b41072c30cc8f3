"""Cables, docks and bridges, as the nodes' ports describe them."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.doctor.cables import find_cables, find_loops
from tbcluster.cluster.doctor.check import check_rack
from tbcluster.cluster.doctor.finding import Finding, Status
from tbcluster.cluster.doctor.rack_map import RackMap
from tbcluster.machine import NodeView, RackView
from tests.doubles.racks import (
    both_ways,
    bridge,
    cabled,
    measured,
    port,
    rack,
    ring,
    thunderbolt,
)


def found(view: RackView, check: str) -> list[Finding]:
    return [f for f in check_rack(view) if f.name == check]


def pair(one: Any = None, other: Any = None) -> tuple[NodeView, NodeView]:
    """mini1 and mini2 with a cable from port 1 to port 2; arguments change a port's facts."""
    return (
        cabled("mini1", port("mini1", 1, "mini2/2", **(one or {}))),
        cabled("mini2", port("mini2", 2, "mini1/1", **(other or {}))),
    )


@pytest.mark.parametrize(
    ("one", "other", "status"),
    [
        ({}, {}, Status.OK),
        ({"link_gbps": 120}, {"link_gbps": 120}, Status.OK),
        ({"link_gbps": 40}, {"link_gbps": 40}, Status.WARNING),
        ({"link_gbps": 40}, {"link_gbps": None}, Status.WARNING),
        # One end can do no more.
        ({"link_gbps": 40}, {"link_gbps": 40, "generation": 4}, Status.OK),
        # It is not known whether both can.
        ({"link_gbps": 40}, {"link_gbps": 40, "generation": None}, Status.OK),
    ],
)
def test_the_speed_of_a_cable(one: Any, other: Any, status: Status) -> None:
    [finding] = found(rack(*pair(one, other)), "thunderbolt-cable")
    assert (finding.status, finding.node) == (status, "mini1")
    if status is Status.WARNING:
        assert "40 Gb/s, although both ports can do 80" in finding.detail
        assert finding.fix == (
            "connect Thunderbolt 1 of mini1 and Thunderbolt 2 of mini2 with a Thunderbolt 5 cable"
        )


def test_a_cable_whose_speed_is_not_known_is_not_judged() -> None:
    unknown = {"link_gbps": None}
    assert found(rack(*pair(unknown, unknown)), "thunderbolt-cable") == []


def test_two_ports_are_linked_only_if_each_names_the_other() -> None:
    one, other = pair()
    assert len(find_cables(RackMap(rack(one, other)))) == 1
    stale = cabled("mini2", port("mini2", 2, "mini3/1"))
    assert find_cables(RackMap(rack(one, stale))) == ()
    assert find_cables(RackMap(rack(one))) == ()
    itself = cabled("mini1", port("mini1", 1, "mini1/2"), port("mini1", 2, "mini1/1"))
    assert find_cables(RackMap(rack(itself))) == ()


def test_a_dock_in_between() -> None:
    via = {"via": ("CalDigit TS3",), "link_gbps": 40, "peer_model": "Mac16,11"}
    view = rack(*pair(via, via))
    docks = found(view, "thunderbolt-dock")
    assert [f.node for f in docks] == ["mini1", "mini2"]
    assert all(f.status is Status.WARNING for f in docks)
    assert "through CalDigit TS3 at 40 Gb/s" in docks[0].detail
    # It is the dock's speed, not a cable's.
    assert found(view, "thunderbolt-cable") == []


def test_a_dock_without_a_mac_behind_it_is_nobodys_business() -> None:
    lonely = cabled("mini1", port("mini1", 1, link_gbps=40, devices=("CalDigit TS3",)))
    assert found(rack(lonely), "thunderbolt-dock") == []


def test_a_mac_behind_a_dock_that_is_no_node_is_told_too() -> None:
    seen = port("mini1", 1, link_gbps=40, via=("Dock",), peer_model="Mac15,14")
    [finding] = found(rack(cabled("mini1", seen)), "thunderbolt-dock")
    assert "another Mac (Mac15,14) through Dock" in finding.detail


@pytest.mark.parametrize("num_nodes", [3, 4, 6])
def test_a_loop_with_bridges_on(num_nodes: int) -> None:
    findings = found(rack(*ring(num_nodes)), "bridge-loop")
    assert [f.node for f in findings] == [f"mini{n}" for n in range(1, num_nodes + 1)]
    for finding in findings:
        assert finding.status is Status.FAILED
        assert finding.fix == (
            "sudo networksetup -setnetworkserviceenabled 'Thunderbolt Bridge' off"
        )


def test_the_service_is_called_by_its_own_name() -> None:
    findings = found(rack(*ring(3, service="Käfig's; rm -rf /")), "bridge-loop")
    fix = findings[0].fix
    assert fix == ("sudo networksetup -setnetworkserviceenabled 'Käfig'\"'\"'s; rm -rf /' off")


def test_a_bridge_without_a_service_is_taken_down() -> None:
    findings = found(rack(*ring(3, service=None)), "bridge-loop")
    assert {f.fix for f in findings} == {"sudo ifconfig bridge0 down"}


def test_bridges_that_are_off_close_no_loop() -> None:
    [finding] = found(rack(*ring(3, is_service_enabled=False)), "bridge-loop")
    assert finding.status is Status.OK
    assert "no bridge closes" in finding.detail


def test_one_node_without_a_bridge_breaks_the_loop() -> None:
    first, *others = ring(3)
    unbridged = cabled("mini1", *first.machine.thunderbolt if first.machine else ())
    [finding] = found(rack(unbridged, *others), "bridge-loop")
    assert finding.status is Status.OK


def test_two_cables_between_two_macs_are_no_loop() -> None:
    [finding] = found(rack(*ring(2)), "bridge-loop")
    assert (finding.status, finding.detail) == (
        Status.OK,
        "the Thunderbolt cables form no loop",
    )


def test_without_cables_there_is_nothing_to_say_of_loops() -> None:
    assert found(rack(cabled("mini1", port("mini1", 1))), "bridge-loop") == []


@pytest.mark.parametrize(
    ("edges", "loops"),
    [
        ([], []),
        (["ab"], []),
        (["ab", "ba"], []),
        (["aa"], []),
        (["ab", "bc", "cd"], []),
        (["ab", "bc", "ca"], ["abc"]),
        # A tail is no part of the loop; two loops that a line joins are two.
        (["ab", "bc", "ca", "cd"], ["abc"]),
        (["ab", "bc", "ca", "cd", "de", "ef", "fd"], ["abc", "def"]),
        (["ab", "bc", "cd", "da", "ac"], ["abcd"]),
    ],
)
def test_loops(edges: list[str], loops: list[str]) -> None:
    assert find_loops((a, b) for a, b in edges) == tuple(frozenset(loop) for loop in loops)


@given(st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=14))
def test_a_forest_has_no_loop_and_everything_else_has_one(edges: set[tuple[int, int]]) -> None:
    simple = {frozenset(edge) for edge in edges if edge[0] != edge[1]}
    groups = [{number} for number in range(8)]
    for edge in simple:
        joined = [group for group in groups if group & edge]
        groups = [g for g in groups if g not in joined] + [set[int]().union(*joined)]
    # A graph without loops has as many edges as nodes, less one for each group.
    is_forest = len(simple) == 8 - len(groups)
    loops = find_loops((str(a), str(b)) for a, b in edges)
    assert (loops == ()) == is_forest
    assert all(len(loop) >= 3 for loop in loops)


# Whether the cable is used


def test_a_cable_that_carries_the_data_is_fine() -> None:
    links = (
        measured("mini1", "mini2", "en2", remote="en3"),
        measured("mini2", "mini1", "en3", remote="en2"),
    )
    [finding] = found(rack(*pair(), links=links), "thunderbolt-use")
    assert finding.status is Status.OK


def test_a_bridge_of_thunderbolt_ports_counts_as_thunderbolt() -> None:
    view = rack(*ring(2), links=both_ways("mini1", "mini2", "bridge0"))
    [finding] = found(view, "thunderbolt-use")
    assert finding.status is Status.OK
    assert "over Thunderbolt (bridge0)" in found(view, "path")[0].detail


@pytest.mark.parametrize(
    ("interface", "fix"),
    [
        (
            thunderbolt(1, address=None),
            "sudo networksetup -setdhcp 'Thunderbolt 1'",
        ),
        (
            thunderbolt(1, address=None, is_service_enabled=False),
            "sudo networksetup -setnetworkserviceenabled 'Thunderbolt 1' on",
        ),
        (
            thunderbolt(1, address=None, service=None),
            "sudo networksetup -createnetworkservice 'Thunderbolt 1' 'Thunderbolt 1'",
        ),
    ],
)
def test_an_interface_without_an_address(interface: Any, fix: str) -> None:
    first = cabled("mini1", port("mini1", 1, "mini2/2"), interfaces=(interface,))
    for links in ((), both_ways("mini1", "mini2", "en0"), both_ways("mini1", "mini2", "en1")):
        [finding] = found(rack(first, pair()[1], links=links), "thunderbolt-use")
        assert (finding.status, finding.node) == (Status.WARNING, "mini1")
        assert "cabled to mini2, but en2 has no address" in finding.detail
        assert finding.fix == fix


def test_a_bridge_without_an_address() -> None:
    silent = (thunderbolt(1, address=None, service=None), bridge("en2", addresses=()))
    first = cabled("mini1", port("mini1", 1, "mini2/2"), interfaces=silent)
    [finding] = found(rack(first, pair()[1]), "thunderbolt-use")
    assert "bridge0 has no address" in finding.detail
    assert finding.fix == "sudo networksetup -setdhcp 'Thunderbolt Bridge'"
    unnamed = replace(silent[1], service=None)
    first = cabled("mini1", port("mini1", 1, "mini2/2"), interfaces=(silent[0], unnamed))
    [finding] = found(rack(first, pair()[1]), "thunderbolt-use")
    assert "-createnetworkservice 'Thunderbolt Bridge'" in (finding.fix or "")


def test_a_second_cable_needs_no_address() -> None:
    first, second = ring(2, is_service_enabled=False)
    links = both_ways("mini1", "mini2", "en2")
    [finding] = found(rack(first, second, links=links), "thunderbolt-use")
    assert finding.status is Status.OK


def test_an_address_that_is_not_used_although_it_is_there() -> None:
    ethernet = measured("mini1", "mini2", "en0", gbps=9.0)
    thunder = measured("mini1", "mini2", "en2", remote="en3", address="fe80::9%en2", gbps=0.4)
    slower = replace(ethernet, paths=(*ethernet.paths, *thunder.paths))
    [finding] = found(rack(*pair(), links=(slower,)), "thunderbolt-use")
    assert finding.status is Status.WARNING
    assert "uses en0 (300 us, 9.0 Gb/s)" in finding.detail
    assert "was measured slower (300 us, 400 Mb/s)" in finding.detail
    [finding] = found(rack(*pair(), links=(ethernet,)), "thunderbolt-use")
    assert "Thunderbolt does not answer" in finding.detail
    cut = replace(slower, dead=("fe80::9%en2",))
    [finding] = found(rack(*pair(), links=(cut,)), "thunderbolt-use")
    assert "Thunderbolt does not answer" in finding.detail


def test_what_was_not_measured_is_not_judged() -> None:
    assert found(rack(*pair()), "thunderbolt-use") == []
