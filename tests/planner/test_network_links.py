"""A network with cables beside it, as the mapping of all pairs that it stands for."""

import pytest

from tbcluster.planner.network_links import NetworkLinks
from tbcluster.planner.nodes import PlanLink

NETWORK, CABLE = PlanLink(1e-3, 1e8), PlanLink(1e-4, 1e9)
LINKS = NetworkLinks("abc", NETWORK, {("a", "b"): CABLE, ("b", "a"): CABLE})


def test_a_cable_goes_before_the_network() -> None:
    assert (LINKS["a", "b"], LINKS["a", "c"]) == (CABLE, NETWORK)


def test_all_pairs_are_in_it_and_no_others() -> None:
    assert dict(LINKS) == {
        ("a", "b"): CABLE,
        ("b", "a"): CABLE,
        ("a", "c"): NETWORK,
        ("c", "a"): NETWORK,
        ("b", "c"): NETWORK,
        ("c", "b"): NETWORK,
    }
    assert len(LINKS) == 6
    for pair in (("a", "a"), ("a", "d"), ("d", "a")):
        assert pair not in LINKS
        with pytest.raises(KeyError):
            LINKS[pair]


def test_some_of_its_nodes() -> None:
    assert dict(LINKS.among("bc")) == {("b", "c"): NETWORK, ("c", "b"): NETWORK}
    assert dict(LINKS.among("ab")) == {("a", "b"): CABLE, ("b", "a"): CABLE}
