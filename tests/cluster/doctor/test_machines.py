"""What each machine has to give, and how it is set up: (facts, check) -> finding."""

from dataclasses import replace
from typing import Any

import pytest

from tbcluster.cluster.doctor.check import check_rack
from tbcluster.cluster.doctor.finding import Finding, Status
from tbcluster.machine import NodeState
from tests.doubles.racks import COMPUTE, GIB, MAC, node, port, rack

CPU = replace(COMPUTE, backend="CPU")
LINUX = {"system": "Linux 6.8.0"}
STAY_AWAKE = "sudo pmset -a sleep 0 autorestart 1 womp 1"


def findings_of(
    check: str, node_facts: dict[str, Any] | None = None, **facts: Any
) -> list[Finding]:
    machine = replace(MAC, **facts)
    view = rack(node("mini1", machine, **(node_facts or {})))
    return [f for f in check_rack(view) if f.name == check and f.node == "mini1"]


@pytest.mark.parametrize(
    ("check", "facts", "status", "detail", "fix"),
    [
        ("compute", {}, Status.OK, "Metal GPU (Apple M4 Pro)", None),
        (
            "compute",
            {"compute": None},
            Status.FAILED,
            "MLX does not start",
            "tbcluster.stage.probe",
        ),
        ("compute", {"compute": CPU}, Status.WARNING, "virtual machine", "on the Mac itself"),
        (
            "compute",
            {"compute": CPU, "architecture": "x86_64"},
            Status.WARNING,
            "built for x86_64",
            "arm64",
        ),
        ("compute", {"compute": CPU, **LINUX}, Status.OK, "CPU", None),
        ("memory", {}, Status.OK, "37 GiB of 48 GiB", None),
        ("memory", {"available_bytes": None}, Status.OK, "37 GiB of 48 GiB", None),
        (
            "memory",
            {"available_bytes": 4 * GIB},
            Status.WARNING,
            "only 4 GiB of 48",
            "top -o mem",
        ),
        ("memory", {"available_bytes": 4 * GIB, **LINUX}, Status.WARNING, "only 4 ", "ps aux"),
        ("memory", {"available_bytes": 5 * GIB}, Status.OK, "37 GiB", None),
        ("wired-limit", {}, Status.OK, "the system's own", None),
        (
            "wired-limit",
            {"wired_limit_mb": 40960},
            Status.WARNING,
            "83% of the memory: it is lost at a reboot",
            "sudo sysctl iogpu.wired_limit_mb=40960",
        ),
        (
            "wired-limit",
            {"wired_limit_mb": 14000},
            Status.WARNING,
            "models could take more",
            "sudo sysctl iogpu.wired_limit_mb=0",
        ),
        (
            "wired-limit",
            {"wired_limit_mb": 48 * 1024},
            Status.WARNING,
            "too little is left",
            "sudo sysctl iogpu.wired_limit_mb=0",
        ),
        ("disk", {}, Status.OK, "300 GB of 500 GB", None),
        ("disk", {"disk_free_bytes": 9 * 10**9}, Status.WARNING, "9 GB of 500", "hf cache ls"),
        (
            "disk",
            {"disk_free_bytes": 90 * 10**9, "disk_total_bytes": 2 * 10**12},
            Status.WARNING,
            "90 GB of 2000 GB",
            "hf cache ls",
        ),
        ("disk", {"disk_free_bytes": 10**8}, Status.FAILED, "the disk is full", "hf cache ls"),
        ("sleep", {}, Status.OK, "never", None),
        ("sleep", {"sleep_minutes": 10}, Status.WARNING, "after 10 idle minutes", STAY_AWAKE),
        ("power-loss", {}, Status.OK, "starts again", None),
        ("power-loss", {"restarts_after_power_loss": False}, Status.WARNING, "off", STAY_AWAKE),
        ("thermal", {}, Status.OK, "full speed", None),
        ("thermal", {"thermal_speed_limit": 62}, Status.WARNING, "62 %", "more air"),
        ("local-network", {}, Status.OK, "not blocked", None),
        # Alone, it has nobody to speak to.
        (
            "local-network",
            {"is_lan_blocked": True},
            Status.WARNING,
            "Local Network privacy",
            "tbcluster service install",
        ),
        ("probe", {}, Status.OK, "everything", None),
        ("probe", {"probe_errors": ("pmset: absent",)}, Status.WARNING, "pmset: absent", None),
    ],
)
def test_a_fact_has_its_finding(
    check: str, facts: dict[str, Any], status: Status, detail: str, fix: str | None
) -> None:
    [finding] = findings_of(check, **facts)
    assert finding.status is status
    assert detail in finding.detail
    assert (fix in finding.fix) if fix and finding.fix else fix == finding.fix


@pytest.mark.parametrize(
    ("check", "facts"),
    [
        ("memory", {"memory_bytes": 0}),
        ("wired-limit", {"wired_limit_mb": None}),
        ("disk", {"disk_total_bytes": 0}),
        ("sleep", {"sleep_minutes": None}),
        ("power-loss", {"restarts_after_power_loss": None}),
        ("thermal", {"thermal_speed_limit": None}),
        ("local-network", LINUX),
        ("rdma", {}),
    ],
)
def test_a_fact_that_is_not_known_has_none(check: str, facts: dict[str, Any]) -> None:
    assert findings_of(check, **facts) == []


def test_memory_is_meant_to_be_full_once_stages_run() -> None:
    [finding] = findings_of("memory", {"stages": ("0: layers 0-15",)}, available_bytes=1 * GIB)
    assert finding.status is Status.OK


def test_a_blocked_local_network_keeps_a_rack_from_serving() -> None:
    blocked = node("mini1", replace(MAC, is_lan_blocked=True))
    view = rack(blocked, node("mini2"))
    [finding] = [f for f in check_rack(view) if f.name == "local-network" and f.node == "mini1"]
    assert finding.status is Status.FAILED
    alone = rack(blocked, node("mini2", state=NodeState.REVOKED))
    [finding] = [f for f in check_rack(alone) if f.name == "local-network"]
    assert finding.status is Status.WARNING


def test_each_probe_error_is_told() -> None:
    errors = ("pmset: absent", "ifconfig: took too long")
    assert len(findings_of("probe", probe_errors=errors)) == 2


TB5 = (port("mini1", 1),)
TB4 = (port("mini1", 1, generation=4),)


@pytest.mark.parametrize(
    ("system", "state", "ports", "expected"),
    [
        ("macOS 26.3", "enabled", TB5, (Status.OK, "enabled", None)),
        ("macOS 26.2", "enabled", TB5, (Status.WARNING, "damaged data", "softwareupdate")),
        ("macOS 26.1", "absent", TB5, (Status.OK, "came with 26.2", "softwareupdate")),
        ("macOS 15.7.1", "absent", TB5, (Status.OK, "came with 26.2", "softwareupdate")),
        ("macOS 27.0", "disabled", TB5, (Status.OK, "disabled", None)),
        ("macOS 27.0", "absent", TB5, None),
        ("macOS 26.3", "enabled", TB4, None),
        ("Linux 6.8.0", "absent", TB5, None),
    ],
)
def test_rdma(
    system: str, state: str, ports: Any, expected: tuple[Status, str, str | None] | None
) -> None:
    rdma = replace(MAC.rdma, state=type(MAC.rdma.state)(state))
    findings = findings_of("rdma", system=system, rdma=rdma, thunderbolt=ports)
    if expected is None:
        assert findings == []
        return
    [finding] = findings
    status, detail, fix = expected
    assert finding.status is status
    assert detail in finding.detail
    assert (fix in finding.fix) if fix and finding.fix else fix == finding.fix


def test_rdma_on_at_the_other_end_alone() -> None:
    state = type(MAC.rdma.state)
    off = replace(MAC.rdma, state=state.DISABLED)
    seen = (port("mini1", 1, "mini2/1", peer_has_rdma=True),)
    [finding] = findings_of("rdma", rdma=off, thunderbolt=seen)
    assert finding.status is Status.OK
    assert "rdma_ctl enable" in (finding.fix or "")
    # Without a cable between them, the other node's own word counts.
    on = node("mini2", replace(MAC, rdma=replace(off, state=state.ENABLED)))
    view = rack(node("mini1", replace(MAC, rdma=off, thunderbolt=TB5)), on)
    [finding] = [f for f in check_rack(view) if f.name == "rdma"]
    assert finding.node == "mini1"
    assert "rdma_ctl enable" in (finding.fix or "")
