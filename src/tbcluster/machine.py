"""The nouns of the control plane, on one page: what a machine is, and how two of them are linked.

A node reports its `Machine`; two nodes measure the `Path`s between them; the best is their link.
This module holds data only: no I/O, no clock.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class InterfaceKind(StrEnum):
    """What a network interface is made of."""

    THUNDERBOLT = "thunderbolt"
    ETHERNET = "ethernet"
    WIFI = "wifi"
    BRIDGE = "bridge"
    LOOPBACK = "loopback"
    OTHER = "other"  # tunnels, containers


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 or IPv6 address without a scope, and the length of its network's prefix."""

    ip: str
    prefix_length: int


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface.

    Attributes:
        members: Interfaces that a bridge joins.
        service: macOS's network service for it (`networksetup`), where there is one.
        is_service_enabled: Whether that service is on; True where there is none.
    """

    name: str
    kind: InterfaceKind
    is_up: bool
    mtu: int
    addresses: tuple[Address, ...] = ()
    members: tuple[str, ...] = ()
    service: str | None = None
    is_service_enabled: bool = True


@dataclass(frozen=True, slots=True)
class ThunderboltPort:
    """One receptacle, and what is plugged into it.

    Attributes:
        receptacle: The number printed by macOS ("2" of "Thunderbolt 2").
        interface: Its network interface, such as en3.
        port_id: This port's domain UUID; a link exists where two ports name each other.
        generation: 5 where the port can do 80 Gb/s or more, 4 below; None if it does not say.
        link_gbps: Speed of what is plugged in; None for an idle port.
        peer_port_id: The other Mac's port.
        peer_model: The other Mac's model, such as Mac15,14.
        peer_has_rdma: Whether the other Mac has RDMA enabled.
        via: Docks and drives between this Mac and the other one, nearest first.
        devices: Docks and drives that are plugged in, wherever they lead.
    """

    receptacle: str
    interface: str | None = None
    port_id: str | None = None
    generation: int | None = None
    link_gbps: int | None = None
    peer_port_id: str | None = None
    peer_model: str | None = None
    peer_has_rdma: bool = False
    via: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


class RdmaState(StrEnum):
    """Whether RDMA over Thunderbolt can be used."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    ABSENT = "absent"  # no such tool: macOS before 26.2, or not macOS


@dataclass(frozen=True, slots=True)
class Rdma:
    """RDMA over Thunderbolt; `ports` maps a device such as rdma_en3 to its port's state."""

    state: RdmaState = RdmaState.ABSENT
    ports: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compute:
    """What MLX says of this machine.

    Attributes:
        backend: "Metal GPU", "CUDA GPU" or "CPU".
        device: The chip or GPU by MLX's name.
        working_set_bytes: Memory that a model may take, weights and caches together.
        max_buffer_bytes: Largest single allocation; None where there is no such limit.
    """

    backend: str
    device: str
    working_set_bytes: int
    max_buffer_bytes: int | None
    mlx_version: str
    mlx_lm_version: str


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything a node says of its machine; None where this system does not tell.

    Attributes:
        system: "macOS 26.3" or "Linux 6.8.0".
        os_build: macOS's build, such as 25D125.
        chip: "Apple M4 Pro".
        model: "Mac16,11".
        cpu_limit: How many cores' time its processes may use (a container's limit); None for all.
        disk_free_bytes: Where models are kept.
        wired_limit_mb: iogpu.wired_limit_mb; 0 is the system's own default.
        sleep_minutes: Idle minutes after which the machine sleeps; 0 is never.
        restarts_after_power_loss: `pmset autorestart`.
        thermal_speed_limit: Percent of full speed; 100 is nominal.
        is_lan_blocked: macOS keeps this process from the local network (Local Network privacy).
        probe_errors: Tools that were missing or could not be read, a line each.
    """

    hostname: str
    system: str
    architecture: str
    tbcluster_version: str
    python_version: str
    os_build: str | None = None
    chip: str | None = None
    model: str | None = None
    num_cores: int = 0
    num_performance_cores: int | None = None
    num_efficiency_cores: int | None = None
    memory_bytes: int = 0
    available_bytes: int | None = None
    disk_free_bytes: int = 0
    disk_total_bytes: int = 0
    compute: Compute | None = None
    wired_limit_mb: int | None = None
    sleep_minutes: int | None = None
    restarts_after_power_loss: bool | None = None
    thermal_speed_limit: int | None = None
    is_lan_blocked: bool = False
    interfaces: tuple[Interface, ...] = ()
    thunderbolt: tuple[ThunderboltPort, ...] = ()
    rdma: Rdma = field(default_factory=Rdma)
    probe_errors: tuple[str, ...] = ()
    cpu_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Gauges:
    """What changes every second on a machine; None where nobody tells.

    Attributes:
        at: Unix time, seconds.
        available_bytes: Memory that is free.
        cpu_load: Of all cores, 0 to 1.
        watts: What the machine draws now.
        joules: The meter's own count since the agent started, so that nothing between two readings
            is lost.
        power_source: The meter: "zeus", "macmon", "rapl" or "nvml".
        temperature_c: Of its hottest sensor.
    """

    at: float
    available_bytes: int | None = None
    cpu_load: float | None = None
    watts: float | None = None
    joules: float | None = None
    power_source: str | None = None
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """One way from a node to another.

    Attributes:
        interface: Where it leaves this node.
        address: The other node's address as this node dials it; a link-local one has its scope
            (fe80::1%en3).
        remote_interface: Where it arrives.
    """

    interface: str
    address: str
    remote_interface: str


@dataclass(frozen=True, slots=True)
class PathMeasurement:
    """What was measured on a path, encrypted as the data plane is.

    Attributes:
        round_trip_us: Median round trip of a small message.
        small_gbps, large_gbps: Gigabits a second with messages of 8 KB and of 8 MB.
        measured_at: Unix time, seconds.
    """

    path: Path
    round_trip_us: float
    small_gbps: float
    large_gbps: float
    measured_at: float


class NodeState(StrEnum):
    """Where a node stands, as the coordinator sees it."""

    ONLINE = "online"
    OFFLINE = "offline"
    REFUSED = "refused"  # it runs another version
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class NodeView:
    """What the coordinator knows of a node.

    Attributes:
        seconds_since_heard: None if it has not been heard since the coordinator started.
        clock_offset_s: By how much its clock is ahead of the coordinator's.
        refused_because: Why it may not take part, in words.
        stages: What it runs, such as "0: layers 0-15".
        is_drained: It belongs to the rack and is given no stages.
        gauges: What it said last; None from one that has said nothing.
    """

    node_id: str
    name: str
    state: NodeState
    is_head: bool = False
    machine: Machine | None = None
    seconds_since_heard: float | None = None
    clock_offset_s: float | None = None
    refused_because: str | None = None
    stages: tuple[str, ...] = ()
    is_drained: bool = False
    gauges: Gauges | None = None


@dataclass(frozen=True, slots=True)
class LinkView:
    """The paths from one node to another, best first.

    Attributes:
        source, target: Node ids.
        paths: What was measured; those that do not answer now are in `dead` too.
        dead: Addresses of `paths` that do not answer now.
    """

    source: str
    target: str
    paths: tuple[PathMeasurement, ...] = ()
    dead: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Serving:
    """The model that a rack serves, and how that goes, such as "starting: ..." or "ready".

    Attributes:
        stages: Lines such as "0: layers 0-15" by the name of their node.
    """

    model: str
    state: str
    stages: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class RackView:
    """The whole rack, as the coordinator sees it.

    Attributes:
        serving: The model that is served, if any.
        serving_state: In words, such as "starting: waiting for mini2" or "ready".
    """

    cluster_id: str
    cluster_name: str
    tbcluster_version: str
    nodes: tuple[NodeView, ...] = ()
    links: tuple[LinkView, ...] = ()
    serving: str | None = None
    serving_state: str | None = None
