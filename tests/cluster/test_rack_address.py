"""Addresses as people write them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.discovery.addresses import join_port
from tbcluster.cluster.rack_address import HostPort, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.168.1.10", "192.168.1.10", None),
        ("192.168.1.10:4000", "192.168.1.10", 4000),
        ("169.254.7.7", "169.254.7.7", None),
        ("fd00::1", "fd00::1", None),
        ("[fd00::1]", "fd00::1", None),
        ("[fd00::1]:4000", "fd00::1", 4000),
        ("fe80::1", "fe80::1", None),
        ("fe80::1%en3", "fe80::1%en3", None),
        ("[fe80::1%en3]:1", "fe80::1%en3", 1),
        ("mini1.local", "mini1.local", None),
        ("mini1:65535", "mini1", 65535),
    ],
)
def test_forms_of_addresses(text: str, host: str, port: int | None) -> None:
    assert parse_address(text) == HostPort(host, port)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no address"),
        ("a b", "is no address"),
        ("-a.local", "is no address"),
        ("http://a", "is no port"),
        ("tcp://10.0.0.1:4000", "is no IPv6 address"),
        ("10.0.0.256", "no IPv4 address"),
        ("10.0.1", "no IPv4 address"),
        ("10.0.0.1:0", "no port: give a number from 1 to 65535"),
        ("10.0.0.1:65536", "no port"),
        ("10.0.0.1:", "no port"),
        ("[fd00::1]4000", "no IPv6 address"),
        ("[fd00::1]:x", "no port"),
        ("fd00::1::2", "no IPv6 address"),
        ("fe80::1%a b", "no IPv6 address"),
        ("0.0.0.0:1", "no address of one machine"),
        ("::", "no address of one machine"),
        ("224.0.0.251", "no address of one machine"),
        ("a" * 254, "is no address"),
    ],
)
def test_what_is_no_address(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_address(text)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.none() | st.integers(1, 65535))
def test_an_address_survives_being_joined_with_its_port(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None
) -> None:
    is_six = address.version == 6
    text = f"[{address}]:{port}" if is_six and port else str(address)
    text = f"{address}:{port}" if not is_six and port else text
    try:
        found = parse_address(text)
    except ValueError:
        assert address.is_multicast or address.is_unspecified
        return
    assert found == (str(address), port)
    assert parse_address(join_port(found.host, 29640)) == (str(address), 29640)


def refusal_of(text: str) -> str | None:
    try:
        parse_address(text)
    except ValueError as error:
        return str(error)
    return None


@given(st.text(alphabet="0123456789abcdef:.[]%en -", max_size=30))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    said = refusal_of(text)
    if said is None:
        found = parse_address(text)
        assert parse_address(join_port(found.host, 29640)).host == found.host
    else:
        assert "is no" in said
