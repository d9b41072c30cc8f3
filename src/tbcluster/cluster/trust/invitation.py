"""Making a token for one machine more."""

import ipaddress
import time
from collections.abc import Iterable, Sequence

from tbcluster.cluster.trust.identity import HeadIdentity
from tbcluster.cluster.trust.join_token import MAX_ADDRESSES, JoinToken
from tbcluster.cluster.trust.members import MemberFile
from tbcluster.hardware.interfaces import local_interfaces
from tbcluster.machine import Interface, InterfaceKind

DEFAULT_VALID_S = 24 * 3600.0
# Where a machine has no network at all, others on the same machine can still join.
LOOPBACK = ("127.0.0.1", "::1")


def invite_node(
    head: HeadIdentity, members: MemberFile, valid_s: float = DEFAULT_VALID_S
) -> JoinToken:
    """A token that admits one machine within so many seconds.

    Raises:
        TrustError: The list of nodes cannot be used.
    """
    return JoinToken(
        server_key=head.keys.public,
        secret=members.invite(valid_s),
        addresses=invited_to(local_interfaces()),
        port=head.control_port,
        expires=int(time.time() + valid_s),
    )


def invited_to(interfaces: Iterable[Interface]) -> tuple[str, ...]:
    """The addresses that a token names: IPv4 first, then IPv6 link-local, then other IPv6."""
    found = {
        address.ip
        for interface in interfaces
        if interface.is_up and interface.kind is not InterfaceKind.LOOPBACK
        for address in interface.addresses
        if _leads_here(address.ip, interface.kind)
    }
    return tuple(sorted(found, key=_rank))[:MAX_ADDRESSES] or LOOPBACK


def link_local_scopes(interfaces: Sequence[Interface]) -> tuple[str, ...]:
    """The interfaces on which link-local addresses of other machines can be dialled."""
    return tuple(
        interface.name
        for interface in interfaces
        if interface.is_up
        and interface.kind is not InterfaceKind.LOOPBACK
        and any(_is_scoped(address.ip) for address in interface.addresses)
    )


def _leads_here(ip: str, kind: InterfaceKind) -> bool:
    # Tunnels of macOS have link-local addresses that lead nowhere.
    is_inner = kind is InterfaceKind.OTHER and _is_scoped(ip)
    return not ipaddress.ip_address(ip).is_loopback and not is_inner


def _is_scoped(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    return address.version == 6 and address.is_link_local


def _rank(ip: str) -> tuple[bool, bool, str]:
    return ":" in ip, not _is_scoped(ip), ip
