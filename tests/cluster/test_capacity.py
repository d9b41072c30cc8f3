"""Racks of one kind of Mac, and a rack file with more: before anything is planned on them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.capacity import node_kind, with_more
from tbcluster.cluster.rack_file import RackFile, RackLink, RackNode
from tbcluster.cluster.rack_shapes import NodeKind, RackShapes, cabling, ports_of
from tbcluster.errors import PlanError

PRO, ULTRA = NodeKind("M4 Pro", 64), NodeKind("M3 Ultra", 512)


@pytest.mark.parametrize(
    "text", ["M4 Pro:64", " Apple M4 Pro : 64 GB ", "M4 Pro:64gb", "M4 Pro:64.0"]
)
def test_a_kind_is_read_as_people_write_it(text: str) -> None:
    assert node_kind(text) == PRO


@pytest.mark.parametrize("text", ["M4 Pro", ":64", "M4 Pro:0", "M4 Pro:99999999", "M4 Pro:-3", ""])
def test_what_is_no_kind_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(
        PlanError, match=r'write its chip and its memory in GB, such as "M4 Pro:64"'
    ):
        node_kind(text)


def test_a_chip_that_nobody_knows_is_refused() -> None:
    with pytest.raises(PlanError, match="'M4 Por' is not known"):
        node_kind("M4 Por:64")


@given(st.integers(0, 40), st.integers(2, 6))
def test_no_machine_has_more_cables_than_ports_and_all_are_connected(
    number: int, ports: int
) -> None:
    names = [f"n{at}" for at in range(number)]
    cables = cabling(names, ports)
    ends = [end for cable in cables for end in cable]
    assert all(ends.count(name) <= ports for name in names)
    assert len({frozenset(cable) for cable in cables}) == len(cables)
    reached = set(names[:1])
    for _ in names:
        reached |= {end for cable in cables if reached & set(cable) for end in cable}
    assert reached == set(names)


def test_a_few_are_meshed_and_many_are_a_ring() -> None:
    assert ports_of("M4 Pro") == 3
    shapes = RackShapes("4-bit/64")
    kinds = {n: shapes.rack([(PRO, n)]).links for n in (4, 5)}
    assert {link.kind for link in kinds[4].values()} == {"thunderbolt5"}
    cabled = {pair for pair, link in kinds[5].items() if link.kind == "thunderbolt5"}
    assert len(cabled) == 10
    assert kinds[5]["m4-pro-64-1", "m4-pro-64-3"].kind == "ethernet1"


def test_machines_without_thunderbolt_have_no_cables() -> None:
    assert [ports_of(chip) for chip in ("M4", "Apple M3 Ultra", "RTX 4090", "")] == [2, 6, 0, 0]
    assert cabling(["a", "b"], 0) == []


def test_kinds_are_cabled_among_themselves() -> None:
    rack = RackShapes("4-bit/64").rack([(ULTRA, 2), (PRO, 1)])
    assert [node.is_head for node in rack.nodes] == [True, False, False]
    assert rack.nodes[0].memory_bytes > 7 * rack.nodes[2].memory_bytes
    assert rack.links["m3-ultra-512-1", "m3-ultra-512-2"].kind == "thunderbolt5"
    assert rack.links["m3-ultra-512-1", "m4-pro-64-1"].kind == "ethernet1"


def test_a_network_is_shared_by_all() -> None:
    rack = RackShapes("4-bit/64", "ethernet10").rack([(ULTRA, 9), (PRO, 9)])
    assert {link.kind for link in rack.links.values()} == {"ethernet10"}


def rack_file(*links: RackLink) -> RackFile:
    nodes = tuple(RackNode(name=name, chip="M4 Pro", memory_gb=64) for name in "abcd")
    return RackFile(name="rack", head="a", nodes=nodes, links=links)


def test_what_is_added_is_cabled_where_ports_are_left() -> None:
    full = [RackLink(between=("a", other), kind="thunderbolt5") for other in "bcd"]
    more = with_more(rack_file(*full), [PRO, PRO], "thunderbolt5")
    assert [node.name for node in more.nodes] == ["a", "b", "c", "d", "new-1", "new-2"]
    cables = [link.between for link in more.links[3:]]
    # The first takes its three ports to b, c and d; the second their last ones.
    assert cables == [("new-1", name) for name in "bcd"] + [("new-2", name) for name in "bcd"]


def test_over_a_network_it_reaches_all() -> None:
    more = with_more(rack_file(), [ULTRA], "ethernet10")
    assert {link.between[1] for link in more.links} == set("abcd")
    assert {link.kind for link in more.links} == {"ethernet10"}
