import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.discovery.addresses import (
    MAX_ADDRESSES,
    in_order,
    join_port,
    lacks_scope,
    split_port,
)

HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.ip_addresses(v=6, network="fe80::/10").map(lambda ip: f"{ip}%en3"),
    st.sampled_from(["mini1.local", "head"]),
)
PORTS = st.integers(1, 65535)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", 7)),
        ("192.0.2.1:29640", ("192.0.2.1", 29640)),
        ("mini1.local", ("mini1.local", 7)),
        ("mini1.local:1", ("mini1.local", 1)),
        ("fd00::1", ("fd00::1", 7)),
        ("[fd00::1]", ("fd00::1", 7)),
        ("[fe80::1%en3]:29640", ("fe80::1%en3", 29640)),
    ],
)
def test_an_address_is_taken_apart(written: str, expected: tuple[str, int]) -> None:
    assert split_port(written, 7) == expected


@given(HOSTS, PORTS, PORTS)
def test_what_is_joined_comes_apart_again(host: str, port: int, default_port: int) -> None:
    assert split_port(join_port(host, port), default_port) == (host, port)
    assert split_port(host, default_port) == (host, default_port)


def test_what_is_no_port_is_refused() -> None:
    with pytest.raises(ValueError, match="nine"):
        split_port("192.0.2.1:nine", 7)


def test_link_local_addresses_need_a_scope() -> None:
    assert lacks_scope("fe80::1")
    for host in ("fe80::1%en3", "fd00::1", "169.254.1.1", "head"):
        assert not lacks_scope(host)


def test_earlier_groups_come_first_and_nothing_twice() -> None:
    groups = (["head.local"], ["192.0.2.9:1", "192.0.2.1"], ["192.0.2.1:7", "fd00::1"])
    assert in_order(groups, 7, ["en0"]) == (
        "head.local:7",
        "192.0.2.9:1",
        "192.0.2.1:7",
        "[fd00::1]:7",
    )


def test_a_link_local_address_without_scope_is_tried_everywhere() -> None:
    assert in_order([["fe80::1", "[fe80::2%en5]:9"]], 7, ["en0", "en3"]) == (
        "[fe80::1%en0]:7",
        "[fe80::1%en3]:7",
        "[fe80::2%en5]:9",
    )
    assert in_order([["fe80::1"]], 7, []) == ()


def test_no_number_of_addresses_is_too_large() -> None:
    many = [f"10.0.{high}.{low}" for high in range(9) for low in range(99)]
    assert in_order([many], 7, []) == tuple(f"{host}:7" for host in many[:MAX_ADDRESSES])
