"""Which ways to a node are worth a try."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.links.candidates import MAX_CANDIDATES, candidates, interface_of
from tbcluster.machine import Address, Interface, InterfaceKind, Path

KINDS = list(InterfaceKind)


def interface(
    name: str,
    *addresses: str,
    kind: InterfaceKind = InterfaceKind.ETHERNET,
    is_up: bool = True,
    members: tuple[str, ...] = (),
) -> Interface:
    """An interface with addresses such as 10.0.0.1/24."""
    parts = [address.partition("/") for address in addresses]
    listed = tuple(Address(ip, int(length)) for ip, _, length in parts)
    return Interface(name, kind, is_up, 1500, listed, members)


def thunderbolt(name: str, *addresses: str) -> Interface:
    return interface(name, *addresses, kind=InterfaceKind.THUNDERBOLT)


def test_each_address_is_tried_from_the_interface_whose_network_it_is_in() -> None:
    local = [interface("en0", "192.0.2.1/24", "2001:db8::1/64"), interface("en8", "10.0.0.1/8")]
    remote = [interface("en5", "192.0.2.9/24", "2001:db8::9/64"), interface("en6", "10.9.0.9/8")]
    assert set(candidates(local, remote)) == {
        Path("en0", "192.0.2.9", "en5"),
        Path("en0", "2001:db8::9", "en5"),
        Path("en8", "10.9.0.9", "en6"),
    }


def test_where_no_network_contains_an_address_the_kernel_decides() -> None:
    assert candidates([interface("en0", "192.0.2.1/24")], [interface("en5", "203.0.113.5/24")]) == (
        Path("", "203.0.113.5", "en5"),
    )


def test_link_local_addresses_are_tried_from_every_interface_that_has_one() -> None:
    local = [thunderbolt("en2", "fe80::2/64"), thunderbolt("en3", "fe80::3/64"), interface("en0")]
    remote = [thunderbolt("en9", "fe80::9/64")]
    assert set(candidates(local, remote)) == {
        Path("en2", "fe80::9%en2", "en9"),
        Path("en3", "fe80::9%en3", "en9"),
    }


def test_thunderbolt_comes_first_and_tunnels_last() -> None:
    kinds = {
        "en0": InterfaceKind.WIFI,
        "utun4": InterfaceKind.OTHER,
        "en1": InterfaceKind.ETHERNET,
        "en2": InterfaceKind.THUNDERBOLT,
    }

    def machine(host: int) -> list[Interface]:
        return [
            interface(name, f"10.{subnet}.0.{host}/24", kind=kind)
            for subnet, (name, kind) in enumerate(kinds.items())
        ]

    order = [path.interface for path in candidates(machine(1), machine(2))]
    assert order == ["en2", "en1", "en0", "utun4"]


def test_a_path_is_as_good_as_the_worse_of_its_ends() -> None:
    local = [interface("en0", "192.0.2.1/24"), interface("en1", "10.0.0.1/24")]
    remote = [
        interface("wlan0", "192.0.2.9/24", kind=InterfaceKind.WIFI),
        interface("eth0", "10.0.0.9/24"),
    ]
    assert [path.remote_interface for path in candidates(local, remote)] == ["eth0", "wlan0"]


@pytest.mark.parametrize("address", ["127.0.0.1/8", "::1/128", "224.0.0.1/4", "0.0.0.0/0", "::/0"])
def test_addresses_that_no_other_host_answers_at_are_left_out(address: str) -> None:
    assert candidates([interface("en0", "192.0.2.1/24")], [interface("en5", address)]) == ()


def test_interfaces_that_are_down_or_loopback_are_left_out() -> None:
    local = [interface("en0", "192.0.2.1/24", "fe80::1/64", is_up=False)]
    remote = [
        interface("en5", "192.0.2.9/24", is_up=False),
        interface("lo0", "198.51.100.1/32", kind=InterfaceKind.LOOPBACK),
        interface("en6", "192.0.2.10/24", "fe80::10/64"),
    ]
    assert candidates(local, remote) == (Path("", "192.0.2.10", "en6"),)


def test_a_bridge_stands_for_its_members() -> None:
    def machine(host: int) -> list[Interface]:
        return [
            thunderbolt("en2", f"fe80::2:{host}/64"),
            interface("bridge0", f"fe80::b:{host}/64", kind=InterfaceKind.BRIDGE, members=("en2",)),
            interface("en0", f"192.0.2.{host}/24"),
        ]

    # The bridge is made of Thunderbolt, so it comes before Ethernet.
    assert candidates(machine(1), machine(2)) == (
        Path("bridge0", "fe80::b:2%bridge0", "bridge0"),
        Path("en0", "192.0.2.2", "en0"),
    )


def test_ipv4_link_local_is_left_to_ipv6_where_the_kernel_could_err() -> None:
    remote = [thunderbolt("en9", "169.254.9.9/16", "fe80::9/64")]
    one = [thunderbolt("en2", "169.254.1.2/16", "fe80::2/64")]
    two = [*one, thunderbolt("en3", "169.254.1.3/16", "fe80::3/64")]
    assert Path("en2", "169.254.9.9", "en9") in candidates(one, remote)
    assert {path.address for path in candidates(two, remote)} == {"fe80::9%en2", "fe80::9%en3"}
    # Better an attempt than none.
    without_ipv6 = [thunderbolt("en9", "169.254.9.9/16")]
    assert candidates(two, without_ipv6) == (Path("en2", "169.254.9.9", "en9"),)


def test_addresses_that_do_not_parse_are_left_out() -> None:
    odd = [Address("not one", 64), Address("10.0.0.1", 99), Address("", -1), Address("fe80::1", 64)]
    remote = [Interface("en5", InterfaceKind.ETHERNET, True, 1500, tuple(odd))]
    local = [interface("en0", "fe80::2/64", "10.0.0.2/24")]
    assert candidates(local, remote) == (Path("en0", "fe80::1%en0", "en5"),)


def test_many_link_local_addresses_leave_room_for_the_others() -> None:
    local = [thunderbolt(f"en{i}", f"fe80::1:{i}/64") for i in range(12)]
    remote = [thunderbolt(f"en{i}", f"fe80::2:{i}/64") for i in range(12)]
    routed = interface("en20", "203.0.113.5/24", kind=InterfaceKind.WIFI)
    found = candidates(local, [*remote, routed])
    assert len(found) == MAX_CANDIDATES
    assert Path("", "203.0.113.5", "en20") in found


def test_own_addresses_give_way_to_others() -> None:
    docker = interface("docker0", "172.17.0.1/16")
    local = [docker, interface("en0", "192.0.2.1/24")]
    crowd = [interface(f"veth{i}", f"10.{i}.0.1/24") for i in range(31)]
    found = candidates(local, [docker, *crowd, interface("en5", "192.0.2.9/24")])
    assert Path("en0", "192.0.2.9", "en5") in found
    assert "172.17.0.1" not in {path.address for path in found}
    # Two nodes on one machine share all addresses.
    assert candidates(local, [docker]) == (Path("docker0", "172.17.0.1", "docker0"),)


def test_the_interface_of_an_address() -> None:
    local = [interface("en0", "192.0.2.1/24"), interface("en1", "2001:db8::1/64")]
    assert interface_of("2001:db8:0::1", local) == "en1"
    assert interface_of("192.0.2.7", local) is None


addresses = st.one_of(
    st.builds(Address, st.ip_addresses(v=4).map(str), st.integers(0, 32)),
    st.builds(Address, st.ip_addresses(v=6).map(str), st.integers(0, 128)),
    st.builds(Address, st.ip_addresses(v=6, network="fe80::/64").map(str), st.just(64)),
    st.builds(Address, st.text(max_size=8), st.integers(-5, 200)),
)
interfaces = st.lists(
    st.builds(
        Interface,
        st.sampled_from([f"en{i}" for i in range(20)]),
        st.sampled_from(KINDS),
        st.booleans(),
        st.just(1500),
        st.lists(addresses, max_size=4).map(tuple),
        st.lists(st.sampled_from(["en1", "en2"]), max_size=2).map(tuple),
    ),
    max_size=14,
    unique_by=lambda one: one.name,
)


@given(interfaces, interfaces)
def test_whatever_the_interfaces(local: list[Interface], remote: list[Interface]) -> None:
    found = candidates(local, remote)
    assert len(found) == len(set(found)) <= MAX_CANDIDATES
    up = {one.name for one in local if one.is_up and one.kind is not InterfaceKind.LOOPBACK}
    for path in found:
        ip, _, scope = path.address.partition("%")
        is_scoped = ip_address(ip).version == 6 and ip_address(ip).is_link_local
        assert bool(scope) == is_scoped
        assert path.interface in up | {""}
        assert not scope or scope == path.interface
        owners = {one.name for one in remote if any(ip == str(a.ip) for a in one.addresses)}
        assert not owners or path.remote_interface in owners
