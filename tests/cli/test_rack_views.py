"""What the commands about the rack draw, at the 80 columns of a terminal."""

import io
import json
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from tbcluster.cli import doctor, links, nodes, status
from tbcluster.cli.rack import find_node, plain
from tbcluster.cluster.doctor.check import check_rack
from tbcluster.cluster.doctor.finding import Finding, can_serve, failed, ok, warning
from tbcluster.cluster.doctor.rack_map import RackMap
from tbcluster.errors import UnknownNodeError
from tbcluster.machine import NodeState
from tests.doubles.racks import (
    MAC,
    both_ways,
    bridge,
    cabled,
    measured,
    node,
    port,
    rack,
    ring,
    thunderbolt,
)

LONG = "studio-in-the-corner"
FULL = rack(
    node(LONG, stages=("0: layers 0-15", "2: layers 24-31"), node_id="c0ffee0123456789"),
    node("mini2", stages=("1: layers 16-23",)),
    node("mini3", None, state=NodeState.OFFLINE, seconds_since_heard=4000.0),
    node("mini4", None, state=NodeState.REVOKED, seconds_since_heard=None),
    links=(
        *both_ways("mini2", "mini3", address="fe80::1c2b:3dff:fe4a:5b6c%en3"),
        replace(measured("mini3", "mini2"), dead=("192.0.2.10",)),
    ),
    serving="Qwen3-8B",
    serving_state="ready",
)
NAMES = [one.name for one in FULL.nodes]


def drawn(what: RenderableType, width: int = 80) -> str:
    screen = Console(file=io.StringIO(), width=width, highlight=False)
    screen.print(what)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.mark.parametrize(
    "table", [nodes.node_table(FULL), status.node_table(FULL)], ids=["nodes", "status"]
)
def test_tables_of_nodes_lose_no_name(table: RenderableType) -> None:
    text = drawn(table)
    for name in NAMES:
        assert name in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_list_of_nodes_tells_what_they_are() -> None:
    text = drawn(nodes.node_table(FULL), width=100)
    for fact in (
        "c0ffee0123456789",
        "Apple M4 Pro",
        "14 cores",
        "10P+4E",
        "37 of 48 GiB",
        "300 GB free",
        "macOS 26.3",
        "25D125",
        "tbcluster 0.1.0",
        "mlx 0.32.4",
        "2: layers 24-31",
        "1 h ago",
        "revoked",
    ):
        assert fact in text, fact


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text("abcxyz019._-", min_size=1, max_size=64), min_size=1, unique=True))
def test_any_name_is_there_whole(names: list[str]) -> None:
    view = rack(*(node(name) for name in names))
    text = drawn(nodes.node_table(view))
    # A long name goes on beneath itself, in the first column; ids are beneath it in turn.
    width = text.splitlines()[0].index("state")
    column = "".join(line[:width].strip() for line in text.splitlines())
    assert column == "node" + "".join(f"{name}id-{name}" for name in names)


def test_everything_about_a_node() -> None:
    described = cabled(
        "mini1",
        port("mini1", 1, "mini2/1", peer_model="Mac16,11", via=("Dock",)),
        port("mini1", 2),
        interfaces=(thunderbolt(1), bridge("en2", is_service_enabled=False)),
        probe_errors=("pmset: absent",),
    )
    text = drawn(nodes.facts_table(replace(described, stages=("0: layers 0-15",))), width=120)
    for fact in (
        "id-mini1",
        "never",
        "en2 thunderbolt, up, mtu 1500, fe80::2/64",
        "joins en2, Thunderbolt Bridge is off",
        "Thunderbolt 5, en2, 80 Gb/s, to Mac16,11, through Dock",
        "Thunderbolt 5, en3, nothing plugged in",
        "pmset: absent",
        "0: layers 0-15",
        "28 GiB",
    ):
        assert fact in text.replace("\n", " "), fact
    assert "name" in drawn(nodes.facts_table(node("bare", None)))


def test_status_at_a_glance() -> None:
    assert status.headline(FULL) == "studio (c0ffee), tbcluster 0.1.0: 2 of 3 nodes online"
    assert status.served_line(FULL) == "serves Qwen3-8B: ready"
    assert "tbcluster serve MODEL" in status.served_line(replace(FULL, serving=None))
    text = drawn(status.link_table(RackMap(FULL)))
    assert "en0 -> en0 (Ethernet, another kind)" in text
    assert "300 us" in text
    assert "no path" in text


def test_links_tell_the_used_one_from_the_dead() -> None:
    best = measured("mini1", "mini2", "en0", address="192.0.2.7")
    second = measured("mini1", "mini2", "en1", address="198.51.100.7", gbps=0.2)
    link = replace(best, paths=(*best.paths, *second.paths), dead=("192.0.2.7",))
    nothing = replace(measured("mini2", "mini1"), paths=())
    view = RackMap(rack(node("mini1"), node("mini2"), links=(link, nothing)))
    text = drawn(links.link_table(view))
    lines = [line.rstrip() for line in text.splitlines()]
    assert any("en0 -> en0 (Ethernet)" in line and line.endswith("dead") for line in lines)
    assert any("en1 -> en1 (Wi-Fi)" in line and line.endswith("used") for line in lines)
    assert "100 Mb/s" in text
    assert "no address answers" in text
    assert max(map(len, lines)) <= 80
    facts = links.link_facts(view, link)
    assert facts["source"] == "mini1"
    assert [found["is_used"] for found in facts["paths"]] == [False, True]
    assert [found["is_dead"] for found in facts["paths"]] == [True, False]
    assert facts["paths"][1]["kind"] == "wifi"
    json.dumps(facts)


def test_links_hold_a_long_address_at_80_columns() -> None:
    text = drawn(links.link_table(RackMap(FULL)))
    assert "fe80::1c2b:3dff:fe4a:5b6c%en3" in text


def shown(findings: list[Finding], *, all_checks: bool = False) -> str:
    screen = Console(file=io.StringIO(), width=80, highlight=False)
    ending = doctor.of_the_rack(serves=can_serve(findings))
    doctor.show(findings, screen, all_checks, ending)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_the_doctor_shows_what_is_wrong_and_each_command_once() -> None:
    findings = [
        ok("disk", "mini1", "plenty"),
        warning("sleep", "mini1", "it sleeps after 10 idle minutes", "sudo pmset -a sleep 0"),
        warning("power-loss", "mini1", "it stays off", "sudo pmset -a sleep 0"),
        failed("nodes", None, "no node is online", "tbcluster agent"),
    ]
    text = shown(findings)
    assert "plenty" not in text
    assert "on mini1 (sleep, power-loss):\n  sudo pmset -a sleep 0\n" in text
    assert "on the head node (nodes):\n  tbcluster agent\n" in text
    assert text.count("pmset") == 1
    assert "ok: 1, warnings: 2, failures: 1; the rack cannot serve" in text
    assert "plenty" in shown(findings, all_checks=True)


def test_commands_are_not_broken_into_lines() -> None:
    command = "sudo networksetup -setnetworkserviceenabled 'Thunderbolt Bridge' off"
    findings = [failed("bridge-loop", "mini1", "a loop", f"{command} && {command}")]
    assert f"  {command} && {command}\n" in shown(findings)


def test_a_healthy_rack_is_one_line() -> None:
    assert shown([ok("state", "mini1", "online")]) == (
        "ok: 1, warnings: 0, failures: 0; nothing keeps the rack from serving\n"
    )


def test_a_machine_alone_is_judged_by_itself() -> None:
    alone = replace(rack(node("mini1")), cluster_id="", cluster_name="")
    findings = check_rack(alone)
    assert "nodes" not in {finding.name for finding in findings}
    assert "nodes" in {finding.name for finding in check_rack(rack(node("mini1")))}
    assert doctor.of_this_machine([ok("disk", "mini1", "plenty")]) == (
        "nothing is wrong with this machine"
    )
    wrong = [
        failed("compute", "mini1", "MLX does not start"),
        warning("probe", "mini1", "one"),
        warning("probe", "mini1", "another"),
    ]
    assert doctor.of_this_machine(wrong) == "wrong here: compute, probe"


def test_the_doctor_loses_no_name_at_80_columns() -> None:
    view = rack(*ring(4), node(LONG, replace(MAC, sleep_minutes=5)))
    text = shown(check_rack(view), all_checks=True)
    for one in view.nodes:
        assert one.name in text
    assert "bridge-loop" in text
    assert "tbcluster-version" in text


def test_what_a_machine_says_does_not_act_on_the_terminal() -> None:
    evil = "\x1b[2J[bold]mini[/bold]\n"
    assert plain(evil).plain == "\N{REPLACEMENT CHARACTER}[2J[bold]mini[/bold]" + (
        "\N{REPLACEMENT CHARACTER}"
    )
    view = rack(node("mini1", replace(MAC, chip=evil, hostname=evil, probe_errors=(evil,))))
    for text in (
        drawn(nodes.node_table(view)),
        drawn(nodes.facts_table(view.nodes[0])),
        shown(check_rack(view)),
    ):
        assert "\x1b" not in text
        assert "[bold]" in text


def test_nodes_are_found_by_name_and_by_id() -> None:
    assert find_node(FULL, "mini2").node_id == "id-mini2"
    assert find_node(FULL, "id-mini2").name == "mini2"
    with pytest.raises(UnknownNodeError, match=r"'mini9': there are studio.*, mini2"):
        find_node(FULL, "mini9")


def test_the_whole_rack_becomes_json() -> None:
    assert json.loads(json.dumps(asdict(FULL)))["nodes"][1]["machine"]["chip"] == "Apple M4 Pro"
