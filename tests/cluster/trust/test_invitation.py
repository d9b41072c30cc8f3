"""Which addresses a token names."""

import time
from pathlib import Path

from tbcluster.cluster.trust import JoinToken, MemberFile, TrustFolder, invite_node
from tbcluster.cluster.trust.invitation import LOOPBACK, invited_to, link_local_scopes
from tbcluster.machine import Address, Interface, InterfaceKind


def interface(
    name: str, kind: InterfaceKind, *ips: str, is_up: bool = True, mtu: int = 1500
) -> Interface:
    return Interface(name, kind, is_up, mtu, tuple(Address(ip, 24) for ip in ips))


LO = interface("lo0", InterfaceKind.LOOPBACK, "127.0.0.1", "::1", "fe80::1")
EN0 = interface("en0", InterfaceKind.WIFI, "192.168.1.10", "fe80::a", "2001:db8::10")
EN3 = interface("en3", InterfaceKind.THUNDERBOLT, "169.254.7.7", "fe80::b")
DOWN = interface("en4", InterfaceKind.ETHERNET, "192.168.2.10", "fe80::c", is_up=False)
TUNNEL = interface("utun0", InterfaceKind.OTHER, "100.64.0.1", "fe80::d")


def test_a_token_names_what_can_be_dialled() -> None:
    assert invited_to([LO, EN0, EN3, DOWN, TUNNEL]) == (
        "100.64.0.1",
        "169.254.7.7",
        "192.168.1.10",
        "fe80::a",
        "fe80::b",
        "2001:db8::10",
    )


def test_without_a_network_there_is_loopback() -> None:
    assert invited_to([LO, DOWN]) == LOOPBACK


def test_link_local_addresses_are_dialled_on_interfaces_that_have_one() -> None:
    plain = interface("en5", InterfaceKind.ETHERNET, "10.0.0.1")
    assert link_local_scopes([LO, EN0, EN3, DOWN, plain]) == ("en0", "en3")


def test_a_token_of_this_machine(tmp_path: Path) -> None:
    folder = TrustFolder(tmp_path)
    head = folder.init("rack", "head", 31000)
    members = MemberFile(folder)
    token = invite_node(head, members, 60.0)
    assert token.cluster_id == head.cluster_id
    assert token.port == 31000
    assert token.addresses
    assert 0 < token.expires - time.time() <= 60
    assert JoinToken.decode(token.encode()) == token
    assert members.admit(token.secret, token.server_key, "mini").name == "mini"
