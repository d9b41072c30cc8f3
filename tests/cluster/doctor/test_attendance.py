"""Who is there, in which version, by which clock."""

from dataclasses import replace

import pytest

from tbcluster.cluster.doctor.check import check_rack
from tbcluster.cluster.doctor.finding import Finding, Status, can_serve
from tbcluster.machine import NodeState, RackView
from tests.doubles.racks import COMPUTE, MAC, both_ways, node, rack


def found(view: RackView, name: str, who: str | None = None) -> Finding:
    """The one finding of this check about this node."""
    findings = [f for f in check_rack(view) if f.name == name and f.node == who]
    assert len(findings) == 1, findings
    return findings[0]


def test_a_rack_without_nodes_cannot_serve() -> None:
    finding = found(rack(), "nodes")
    assert (finding.status, finding.fix) == (Status.FAILED, "tbcluster init")


def test_a_rack_whose_nodes_are_all_away_cannot_serve() -> None:
    view = rack(node("mini1", state=NodeState.OFFLINE), serving_state="ready")
    assert found(view, "nodes").status is Status.FAILED


def test_a_node_that_is_away_keeps_a_model_from_starting() -> None:
    away = node("mini2", state=NodeState.OFFLINE, seconds_since_heard=200.0)
    finding = found(rack(node("mini1"), away), "state", "mini2")
    assert finding.status is Status.FAILED
    assert finding.detail == "offline: last heard 3 min ago"
    assert finding.fix is not None
    assert finding.fix.startswith("tbcluster service install")


def test_a_model_that_answers_does_without_it() -> None:
    away = node("mini2", state=NodeState.OFFLINE)
    view = rack(node("mini1"), away, serving="demo", serving_state="ready")
    assert found(view, "state", "mini2").status is Status.WARNING
    assert can_serve(check_rack(view))


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("ready", Status.OK),
        ("starting", Status.OK),
        (None, Status.OK),
        ("failed: stage 1 ran out of memory", Status.FAILED),
    ],
)
def test_what_is_served(state: str | None, status: Status) -> None:
    view = rack(node("mini1"), serving="demo", serving_state=state)
    finding = found(view, "serving")
    assert finding.status is status
    assert (state or "not known") in finding.detail
    assert (finding.fix is None) == (status is Status.OK)


def test_a_node_never_heard_may_be_asleep() -> None:
    sleepy = replace(MAC, sleep_minutes=10)
    away = node("mini2", sleepy, state=NodeState.OFFLINE, seconds_since_heard=None)
    detail = found(rack(node("mini1"), away), "state", "mini2").detail
    assert detail == "offline: not heard; it is set to sleep after 10 idle minutes"
    # Nothing else is said of a machine that is away: it may have changed.
    others = [f.name for f in check_rack(rack(node("mini1"), away)) if f.node == "mini2"]
    assert others == ["state"]


def test_a_revoked_node_is_no_problem() -> None:
    view = rack(node("mini1"), node("mini2", None, state=NodeState.REVOKED))
    finding = found(view, "state", "mini2")
    assert (finding.status, finding.fix) == (Status.OK, None)
    assert "1 of 1 nodes" in found(view, "nodes").detail


def test_a_refused_node_is_told_which_version_to_install() -> None:
    other = replace(MAC, tbcluster_version="0.0.9")
    view = rack(node("mini1"), node("mini2", other, state=NodeState.REFUSED))
    finding = found(view, "state", "mini2")
    assert finding.status is Status.FAILED
    assert "0.0.9" in finding.detail
    assert "0.1.0" in finding.detail
    assert "install tbcluster 0.1.0" in (finding.fix or "")


def test_a_refusal_for_another_reason_is_passed_on() -> None:
    view = rack(
        node("mini1"),
        node("mini2", state=NodeState.REFUSED, refused_because="protocol 2, not 1"),
    )
    assert found(view, "state", "mini2").detail == "refused: protocol 2, not 1"


@pytest.mark.parametrize(
    ("offset_s", "status", "words"),
    [
        (0.4, Status.OK, "0.4 s from"),
        (-0.9, Status.OK, "0.9 s from"),
        (3.0, Status.WARNING, "3 s ahead of"),
        (-7200.0, Status.WARNING, "2 h behind"),
    ],
)
def test_clocks(offset_s: float, status: Status, words: str) -> None:
    finding = found(rack(node("mini1", clock_offset_s=offset_s)), "clock", "mini1")
    assert finding.status is status
    assert words in finding.detail
    assert finding.fix == (None if status is Status.OK else "sudo sntp -sS time.apple.com")


def test_a_clock_on_linux_has_another_command() -> None:
    box = replace(MAC, system="Linux 6.8.0")
    finding = found(rack(node("box", box, clock_offset_s=60.0)), "clock", "box")
    assert finding.fix == "sudo timedatectl set-ntp true"


def test_an_unknown_clock_is_not_judged() -> None:
    names = [f.name for f in check_rack(rack(node("mini1", clock_offset_s=None)))]
    assert "clock" not in names


@pytest.mark.parametrize("state", [NodeState.ONLINE, NodeState.OFFLINE])
def test_a_node_that_is_drained_is_meant_to_be_idle(state: NodeState) -> None:
    view = rack(node("mini1"), node("mini2", state=state, is_drained=True))
    finding = found(view, "state", "mini2")
    assert finding.status is Status.OK
    assert "drained: `tbcluster undrain mini2` takes it back" in finding.detail


def test_another_version_of_tbcluster_that_is_let_in_is_told() -> None:
    other = replace(MAC, tbcluster_version="0.2.0")
    finding = found(rack(node("mini1"), node("mini2", other)), "tbcluster-version", "mini2")
    assert finding.status is Status.WARNING
    assert "0.2.0" in finding.detail
    assert "0.1.0" in finding.detail


def test_mlx_is_compared_with_the_head_node() -> None:
    old = replace(MAC, compute=replace(COMPUTE, mlx_version="0.31.0", mlx_lm_version="0.31.1"))
    view = rack(node("mini1", old), node("mini2"), node("mini3"))
    for who in ("mini2", "mini3"):
        finding = found(view, "mlx-version", who)
        assert finding.status is Status.WARNING
        assert (finding.fix or "").startswith("python -m pip install mlx==0.31.0 ")
        fix = found(view, "mlx-lm-version", who).fix or ""
        assert fix.startswith("python -m pip install mlx-lm==0.31.1 ")


def test_mlx_is_compared_with_the_most_where_the_head_node_does_not_tell() -> None:
    old = replace(MAC, compute=replace(COMPUTE, mlx_version="0.31.0"))
    view = rack(node("mini1", None), node("mini2", old), node("mini3"), node("mini4"))
    assert "mlx==0.32.4" in (found(view, "mlx-version", "mini2").fix or "")
    assert [f for f in check_rack(view) if f.name == "mlx-version" and f.node != "mini2"] == []


@pytest.mark.parametrize(
    ("builds", "behind"),
    [
        (("25D125", "25D125"), []),
        (("25D125", "25C56"), ["mini2"]),
        (("25D9", "25D125"), ["mini1"]),
        (("25D125", "26A1"), ["mini1"]),
        (("25D125", None), []),
        (("25D125", "redacted"), ["mini2"]),
    ],
)
def test_os_builds(builds: tuple[str | None, ...], behind: list[str]) -> None:
    nodes = [
        node(f"mini{number}", replace(MAC, os_build=build))
        for number, build in enumerate(builds, 1)
    ]
    view = rack(*nodes, links=both_ways("mini1", "mini2"))
    findings = [f for f in check_rack(view) if f.name == "os-build"]
    assert [f.node for f in findings if f.status is Status.WARNING] == behind
    for finding in findings:
        expected = None if finding.status is Status.OK else "sudo softwareupdate"
        assert (finding.fix or "").startswith(expected or "")


def test_linux_has_no_builds_to_compare() -> None:
    box = replace(MAC, system="Linux 6.8.0", os_build=None)
    view = rack(node("mini1"), node("box", box))
    assert [f.status for f in check_rack(view) if f.name == "os-build"] == [Status.OK]
