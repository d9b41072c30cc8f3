"""All checks together: any rack gets an answer, and a healthy one has nothing to mend."""

import json
from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.cluster.doctor.check import check_rack
from tbcluster.cluster.doctor.finding import Finding, Status, can_serve, failed, ok, warning
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
    Rdma,
    ThunderboltPort,
)
from tests.doubles.racks import MAC, both_ways, cabled, node, port, rack, ring

HEALTHY = rack(
    cabled("mini1", port("mini1", 1, "mini2/2")),
    cabled("mini2", port("mini2", 2, "mini1/1")),
    links=(
        *both_ways("mini1", "mini2", "en2", remote="en3", gbps=25.0)[:1],
        *both_ways("mini1", "mini2", "en3", remote="en2", gbps=25.0)[1:],
    ),
)

few_names = st.sampled_from(["a", "b", "c", "en0", "en2", "bridge0", ""])
text = few_names | st.text(max_size=6)
numbers = st.integers(-1, 2**48)
reals = st.floats()
percent = st.none() | st.integers(0, 200)
compute = st.builds(
    Compute,
    backend=st.sampled_from(["CPU", "Metal GPU", "CUDA GPU"]),
    working_set_bytes=numbers,
    max_buffer_bytes=st.none() | numbers,
    device=text,
    mlx_version=text,
    mlx_lm_version=text,
)
interfaces = st.builds(
    Interface,
    name=few_names,
    kind=st.sampled_from(InterfaceKind),
    is_up=st.booleans(),
    mtu=numbers,
    addresses=st.lists(st.builds(Address, text, st.integers(0, 128)), max_size=2).map(tuple),
    members=st.lists(few_names, max_size=3).map(tuple),
    service=st.none() | text,
    is_service_enabled=st.booleans(),
)
ports = st.builds(
    ThunderboltPort,
    receptacle=text,
    interface=st.none() | few_names,
    port_id=st.none() | few_names,
    generation=percent,
    link_gbps=percent,
    peer_port_id=st.none() | few_names,
    peer_model=st.none() | text,
    via=st.lists(text, max_size=2).map(tuple),
)
machines = st.builds(
    Machine,
    hostname=text,
    system=st.sampled_from(["macOS 26.2", "macOS 26", "macOS", "Linux 6.8.0", ""]) | text,
    architecture=text,
    tbcluster_version=text,
    python_version=text,
    os_build=st.none() | st.sampled_from(["25D125", "25C1a"]) | text,
    memory_bytes=numbers,
    available_bytes=st.none() | numbers,
    disk_free_bytes=numbers,
    disk_total_bytes=numbers,
    compute=st.none() | compute,
    wired_limit_mb=st.none() | numbers,
    sleep_minutes=percent,
    restarts_after_power_loss=st.none() | st.booleans(),
    thermal_speed_limit=percent,
    is_lan_blocked=st.booleans(),
    interfaces=st.lists(interfaces, max_size=4).map(tuple),
    thunderbolt=st.lists(ports, max_size=3).map(tuple),
    rdma=st.builds(Rdma),
    probe_errors=st.lists(text, max_size=2).map(tuple),
)
nodes = st.builds(
    NodeView,
    node_id=few_names,
    name=text,
    state=st.sampled_from(NodeState),
    is_head=st.booleans(),
    machine=st.none() | machines,
    seconds_since_heard=st.none() | reals,
    clock_offset_s=st.none() | reals,
    refused_because=st.none() | text,
    stages=st.lists(text, max_size=2).map(tuple),
)
paths = st.builds(
    PathMeasurement,
    path=st.builds(Path, few_names, few_names, few_names),
    round_trip_us=reals,
    small_gbps=reals,
    large_gbps=reals,
    measured_at=reals,
)
link_views = st.builds(
    LinkView,
    source=few_names,
    target=few_names,
    paths=st.lists(paths, max_size=3).map(tuple),
    dead=st.lists(few_names, max_size=2).map(tuple),
)
racks = st.builds(
    RackView,
    cluster_id=text,
    cluster_name=text,
    tbcluster_version=text,
    nodes=st.lists(nodes, max_size=4).map(tuple),
    links=st.lists(link_views, max_size=5).map(tuple),
    serving=st.none() | text,
    serving_state=st.none() | st.just("ready") | text,
)


@given(racks)
@settings(max_examples=150, deadline=None)
def test_any_rack_has_findings_in_words(given_rack: RackView) -> None:
    findings = check_rack(given_rack)
    assert findings
    for finding in findings:
        assert finding.name
        assert finding.detail.strip()
        assert finding.fix is None or finding.fix.strip()
        assert finding.status is Status.OK or finding.fix or finding.name == "probe"


@given(racks)
@settings(max_examples=50, deadline=None)
def test_the_order_of_links_changes_no_verdict(given_rack: RackView) -> None:
    turned = RackView(**{**shallow(given_rack), "links": given_rack.links[::-1]})
    assert can_serve(check_rack(turned)) == can_serve(check_rack(given_rack))


def shallow(given_rack: RackView) -> dict[str, object]:
    return {name: getattr(given_rack, name) for name in RackView.__dataclass_fields__}


def test_a_healthy_rack_has_nothing_to_mend() -> None:
    findings = check_rack(HEALTHY)
    assert [f for f in findings if f.status is not Status.OK or f.fix] == []
    # What was checked is said all the same, for the rack and for each node.
    assert {f.name for f in findings if f.node is None} == {
        "nodes",
        "tbcluster-version",
        "mlx-version",
        "mlx-lm-version",
        "os-build",
        "bridge-loop",
    }
    for name in ("mini1", "mini2"):
        assert {f.name for f in findings if f.node == name} >= {
            "state",
            "clock",
            "compute",
            "memory",
            "wired-limit",
            "disk",
            "local-network",
            "sleep",
            "power-loss",
            "thermal",
            "path",
            "probe",
        }


def test_what_is_not_known_is_not_judged() -> None:
    bare = Machine("host", "Linux 6.8.0", "x86_64", MAC.tbcluster_version, "3.11.9")
    findings = check_rack(rack(node("box", bare, clock_offset_s=None)))
    assert {f.name for f in findings if f.status is not Status.OK} == {"compute"}
    assert {f.name for f in findings} == {
        "nodes",
        "state",
        "tbcluster-version",
        "compute",
        "probe",
    }


def test_findings_become_plain_json() -> None:
    listed = json.loads(json.dumps([asdict(f) for f in check_rack(rack(*ring(3)))]))
    assert all(set(entry) == {"name", "node", "status", "detail", "fix"} for entry in listed)
    assert {entry["status"] for entry in listed} == {"ok", "failed"}


def test_only_failures_keep_a_rack_from_serving() -> None:
    fine: list[Finding] = [ok("a", None, "fine"), warning("b", "mini1", "slow", "faster")]
    assert can_serve(fine)
    assert not can_serve([*fine, failed("c", None, "gone")])
