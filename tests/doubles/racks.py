"""Racks as a coordinator would describe them: healthy Macs, for a test to make ill."""

from dataclasses import replace
from typing import Any

from tbcluster.machine import (
    Address,
    Compute,
    Interface,
    InterfaceKind,
    LinkView,
    Machine,
    NodeState,
    NodeView,
    Path,
    PathMeasurement,
    RackView,
    ThunderboltPort,
)

VERSION = "0.1.0"
GIB = 2**30
COMPUTE = Compute(
    backend="Metal GPU",
    device="Apple M4 Pro",
    working_set_bytes=37 * GIB,
    max_buffer_bytes=28 * GIB,
    mlx_version="0.32.4",
    mlx_lm_version="0.32.2",
)
ETHERNET = Interface(
    "en0", InterfaceKind.ETHERNET, True, 1500, (Address("192.0.2.10", 24),), service="Ethernet"
)
WIFI = Interface(
    "en1", InterfaceKind.WIFI, True, 1500, (Address("198.51.100.10", 24),), service="Wi-Fi"
)
MAC = Machine(
    hostname="mini.local",
    system="macOS 26.3",
    architecture="arm64",
    tbcluster_version=VERSION,
    python_version="3.12.4",
    os_build="25D125",
    chip="Apple M4 Pro",
    model="Mac16,11",
    num_cores=14,
    num_performance_cores=10,
    num_efficiency_cores=4,
    memory_bytes=48 * GIB,
    available_bytes=40 * GIB,
    disk_free_bytes=300 * 10**9,
    disk_total_bytes=500 * 10**9,
    compute=COMPUTE,
    wired_limit_mb=0,
    sleep_minutes=0,
    restarts_after_power_loss=True,
    thermal_speed_limit=100,
    interfaces=(ETHERNET, WIFI),
)


def node(name: str, machine: Machine | None = MAC, **facts: Any) -> NodeView:
    """An online node whose id is its name."""
    facts = {"state": NodeState.ONLINE, "seconds_since_heard": 0.2, "clock_offset_s": 0.0, **facts}
    return NodeView(facts.pop("node_id", f"id-{name}"), name, machine=machine, **facts)


def measured(
    source: str,
    target: str,
    interface: str = "en0",
    *,
    remote: str | None = None,
    address: str = "192.0.2.10",
    round_trip_us: float = 300.0,
    gbps: float = 8.0,
) -> LinkView:
    """A link of one path."""
    path = Path(interface, address, remote or interface)
    found = PathMeasurement(path, round_trip_us, gbps / 2, gbps, measured_at=1.8e9)
    return LinkView(f"id-{source}", f"id-{target}", (found,))


def both_ways(a: str, b: str, interface: str = "en0", **facts: Any) -> tuple[LinkView, LinkView]:
    """The same measurement in both directions."""
    return measured(a, b, interface, **facts), measured(b, a, interface, **facts)


def rack(*nodes: NodeView, links: tuple[LinkView, ...] = (), **facts: Any) -> RackView:
    """A rack whose first node is the head."""
    first = tuple(replace(one, is_head=True) for one in nodes[:1])
    facts = {"tbcluster_version": VERSION, **facts}
    return RackView("c0ffee", "studio", nodes=(*first, *nodes[1:]), links=links, **facts)


def thunderbolt(number: int, *, address: str | None = "fe80::2", **facts: Any) -> Interface:
    """The interface of port `number`: en2 for 1, en3 for 2."""
    addresses = (Address(address, 64),) if address else ()
    facts = {"service": f"Thunderbolt {number}", **facts}
    return Interface(
        f"en{number + 1}", InterfaceKind.THUNDERBOLT, True, 1500, addresses=addresses, **facts
    )


def port(name: str, number: int, to: str | None = None, **facts: Any) -> ThunderboltPort:
    """Port `number` of a Mac; `to` is "mini2/1", another's port."""
    facts = {"generation": 5, "link_gbps": 80 if to else None, **facts}
    return ThunderboltPort(
        str(number), f"en{number + 1}", f"{name}/{number}", peer_port_id=to, **facts
    )


def cabled(name: str, *ports: ThunderboltPort, **facts: Any) -> NodeView:
    """A node with these ports, each with an interface of its own that has an address."""
    interfaces = facts.pop("interfaces", tuple(thunderbolt(int(one.receptacle)) for one in ports))
    machine = replace(MAC, thunderbolt=ports, interfaces=(ETHERNET, WIFI, *interfaces))
    return node(name, replace(machine, **facts))


def bridge(*members: str, **facts: Any) -> Interface:
    """Thunderbolt Bridge, on and with an address."""
    facts = {"service": "Thunderbolt Bridge", **facts}
    address = (Address("169.254.7.1", 16),)
    return Interface(
        "bridge0",
        InterfaceKind.BRIDGE,
        True,
        1500,
        addresses=facts.pop("addresses", address),
        members=members,
        **facts,
    )


def ring(num_nodes: int, **facts: Any) -> tuple[NodeView, ...]:
    """Macs cabled in a ring: port 2 of each to port 1 of the next. `facts` are the bridge's."""
    names = [f"mini{number}" for number in range(1, num_nodes + 1)]
    nodes = []
    for position, name in enumerate(names):
        before, after = names[position - 1], names[(position + 1) % num_nodes]
        ports = (port(name, 1, f"{before}/2"), port(name, 2, f"{after}/1"))
        interfaces = (
            thunderbolt(1, address=None, service=None),
            thunderbolt(2, address=None, service=None),
            bridge("en2", "en3", **facts),
        )
        nodes.append(cabled(name, *ports, interfaces=interfaces))
    return tuple(nodes)
