"""The rack as the planner sees it, from what nodes say and from rack files."""

from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster.chip_speeds import catalogue_speed
from tbcluster.cluster.own_chips import ChipTable
from tbcluster.cluster.plan_rack import (
    DECODE_POWER,
    memory_for_models,
    one_machine,
    plan_rack,
    rack_of_file,
)
from tbcluster.cluster.rack_file import RackFile, RackLink, RackNode, read_rack_file
from tbcluster.errors import RackFileError
from tbcluster.hardware.chips import find_chip
from tbcluster.machine import (
    Compute,
    Interface,
    InterfaceKind,
    LinkView,
    Machine,
    NodeState,
    NodeView,
    PathMeasurement,
)
from tbcluster.machine import Path as Way
from tbcluster.planner.nodes import NodePower, NodeSpeed, PlanLink, SpeedSource

GIB = 1 << 30
CONFIGS = Path(__file__).parents[2] / "configs"
MEASURED = NodeSpeed(((1, 1e-9),), 1e-4, 1e-4, 1e-9)


def machine(chip: str | None, backend: str | None = "Metal GPU", gib: int = 48) -> Machine:
    compute = Compute(backend, "a device", gib * GIB, None, "1", "1") if backend else None
    cable = Interface("en3", InterfaceKind.THUNDERBOLT, is_up=True, mtu=1500)
    return Machine(
        "host", "a system", "arm64", "1", "3.11",
        chip=chip, memory_bytes=64 * GIB, compute=compute, interfaces=(cable,),
    )  # fmt: skip


def node(name: str, what: Machine | None, *, is_head: bool = False) -> NodeView:
    return NodeView(f"id-{name}", name, NodeState.ONLINE, is_head, what)


def measured(address: str, round_trip_us: float, large_gbps: float) -> PathMeasurement:
    return PathMeasurement(Way("en3", address, "en4"), round_trip_us, 1.0, large_gbps, 0.0)


def test_nodes_come_head_first_with_what_is_known_of_each() -> None:
    nodes = [
        node("away", None),
        node("b", machine("Apple M4 Pro")),
        node("c", machine(None, backend=None)),
        node("z", machine("Apple M9 Giga"), is_head=True),
    ]
    rack = plan_rack(nodes, (), {"id-z": MEASURED}, "float16", {"b": 8 * GIB, "z": 99 * GIB})
    assert [one.name for one in rack.nodes] == ["z", "b", "c"]
    assert [one.is_head for one in rack.nodes] == [True, False, False]
    assert [one.memory_bytes for one in rack.nodes] == [0, 40 * GIB, 0]
    sources = [one.speed.source for one in rack.nodes]
    assert sources == [SpeedSource.MEASURED, SpeedSource.CATALOGUE, SpeedSource.ASSUMED]
    assert rack.nodes[0].speed == MEASURED


def test_a_live_mac_has_watts_and_a_price_by_its_memory() -> None:
    small = machine("Apple M4 Pro")
    large = replace(machine("Apple M3 Ultra"), memory_bytes=512 * GIB)
    one, other = plan_rack([node("a", small), node("b", large)], (), {}, "float16").nodes
    assert (one.price_usd, other.price_usd) == (1999, 11_699)
    assert one.power == NodePower(5, 5 + DECODE_POWER * 135, 140)
    # Only the chip of 80 cores is sold with 512 GB.
    many = find_chip("M3 Ultra", 80)
    assert many is not None
    assert other.speed == catalogue_speed(many, "float16")


def test_a_mac_without_metal_is_no_mac_to_a_model() -> None:
    rack = plan_rack([node("a", machine("Apple M4 Pro", "CPU"))], (), {}, "float16")
    assert rack.nodes[0].speed.source is SpeedSource.ASSUMED


def test_a_link_is_its_best_path_that_answers() -> None:
    nodes = [node(name, machine(None)) for name in ("a", "b")]
    paths = (measured("10.0.0.2", 400, 16), measured("10.0.1.2", 1000, 8))
    there = LinkView("id-a", "id-b", paths)
    back = LinkView("id-b", "id-a", paths, dead=("10.0.0.2",))
    rack = plan_rack(nodes, [there, back, LinkView("id-a", "id-gone", paths)], {}, "float16")
    assert rack.links == {
        ("a", "b"): PlanLink(200e-6, 2e9, "thunderbolt"),
        ("b", "a"): PlanLink(500e-6, 1e9, "thunderbolt"),
    }


def test_pairs_without_a_path_cannot_reach_each_other() -> None:
    nodes = [node(name, machine(None)) for name in ("a", "b")]
    dead = LinkView("id-a", "id-b", (measured("10.0.0.2", 400, 16),), dead=("10.0.0.2",))
    assert plan_rack(nodes, [dead, LinkView("id-b", "id-a")], {}, "float16").links == {}


def test_a_path_that_no_large_message_crossed_is_as_fast_as_small_ones() -> None:
    nodes = [node(name, machine(None)) for name in ("a", "b")]
    rack = plan_rack(nodes, [LinkView("id-a", "id-b", (measured("x", 400, 0),))], {}, "float16")
    assert rack.links["a", "b"].bytes_per_s == 1e9 / 8


def test_memory_is_what_mlx_says() -> None:
    assert memory_for_models(machine("Apple M4 Pro")) == 48 * GIB
    assert memory_for_models(machine("Apple M4 Pro", backend=None)) == 0
    assert memory_for_models(None) == 0


def test_one_machine() -> None:
    rack = one_machine(5, MEASURED, "here")
    (alone,) = rack.nodes
    assert (alone.name, alone.memory_bytes, alone.is_head, rack.links) == ("here", 5, True, {})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_example_can_be_planned_for(path: Path) -> None:
    file = read_rack_file(path)
    rack = rack_of_file(file, "4-bit/64")
    assert rack.nodes[0].name == file.head
    assert [one.is_head for one in rack.nodes] == [True] + [False] * (len(rack.nodes) - 1)
    assert all(one.speed.source is SpeedSource.CATALOGUE for one in rack.nodes)
    assert len(rack.links) == len(rack.nodes) * (len(rack.nodes) - 1)


def a_file(*links: RackLink, **changes: object) -> RackFile:
    one = RackNode(name="a", chip="M4 Pro", memory_gb=24)
    other = RackNode.model_validate({"name": "b", "chip": "M3 Ultra", "memory_gb": 512.0} | changes)
    return RackFile(name="rack", head="b", nodes=(one, other), links=links)


def test_macs_give_models_what_metal_takes_by_default() -> None:
    head, small = rack_of_file(a_file(), "float16").nodes
    assert (head.name, head.memory_bytes) == ("b", 384 * GIB)
    assert (small.name, small.memory_bytes) == ("a", 16 * GIB)


def test_of_several_cables_the_fastest_counts() -> None:
    between = ("a", "b")
    cables = [
        RackLink(between=between, kind="ethernet1"),
        RackLink(between=between, kind="thunderbolt4"),
        RackLink(between=between, kind="wifi"),
    ]
    rack = rack_of_file(a_file(*cables), "float16")
    assert rack.links["a", "b"] == rack.links["b", "a"]
    assert rack.links["a", "b"].kind == "thunderbolt4"


def test_a_cable_that_is_slower_than_its_kind() -> None:
    link = RackLink(between=("a", "b"), kind="ethernet10", gbps=2)
    assert rack_of_file(a_file(link), "float16").links["b", "a"].bytes_per_s == 2e9 / 8
    fast = link.model_copy(update={"gbps": 99})
    assert rack_of_file(a_file(fast), "float16").links["b", "a"].bytes_per_s == 9.4e9 / 8


def test_nodes_without_a_cable_meet_over_a_network() -> None:
    assert rack_of_file(a_file(), "float16").links["a", "b"].kind == "ethernet1"


def test_beside_a_bad_cable_there_is_the_network() -> None:
    bad = RackLink(between=("a", "b"), kind="thunderbolt3", gbps=0.1)
    assert rack_of_file(a_file(bad), "float16").links["a", "b"].kind == "ethernet1"
    network = RackLink(between=("a", "b"), kind="wifi")
    assert rack_of_file(a_file(network), "float16").links["a", "b"].kind == "wifi"
    both = rack_of_file(a_file(bad, network), "float16").links["a", "b"]
    assert both.kind == "thunderbolt3", "a decode message: 2.9 ms, and 3.7 over Wi-Fi"


def test_more_cables_make_no_hop_slower() -> None:
    bare, ring, mesh = (
        rack_of_file(file, "4-bit/64").links
        for file in (
            read_rack_file(CONFIGS / "4x-m3-ultra-ring.toml").model_copy(update={"links": ()}),
            read_rack_file(CONFIGS / "4x-m3-ultra-ring.toml"),
            read_rack_file(CONFIGS / "4x-m3-ultra-mesh.toml"),
        )
    )
    for fewer, more in ((bare, ring), (ring, mesh)):
        for pair, link in fewer.items():
            assert more[pair].latency_s <= link.latency_s
            assert more[pair].bytes_per_s >= link.bytes_per_s


def test_a_chip_that_is_not_known_is_refused_with_near_names() -> None:
    with pytest.raises(RackFileError, match="b: the chip 'M4 Prot' is not known: is it M4 Pro"):
        rack_of_file(a_file(chip="M4 Prot"), "float16")


def test_a_chip_of_the_files_own() -> None:
    mine = ChipTable(name="M9 Giga", bandwidth_gbs=5000, tflops=100, idle_w=10, max_w=110)
    file = a_file(chip="M9 Giga").model_copy(update={"chips": (mine,)})
    head, known = rack_of_file(file, "float16").nodes
    assert head.speed.rates[0][1] < known.speed.rates[0][1]
    assert head.power == NodePower(10, pytest.approx(10 + DECODE_POWER * 100), 110)


def test_a_chip_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TBCLUSTER_HOME", str(tmp_path))
    (tmp_path / "chips.toml").write_text(
        '[[chips]]\nname = "M9 Giga"\nbandwidth_gbs = 5000\ntflops = 100.0\n'
    )
    head, known = rack_of_file(a_file(chip="M9 Giga"), "float16").nodes
    assert head.speed.rates[0][1] < known.speed.rates[0][1]


def test_a_file_of_chips_that_is_wrong_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TBCLUSTER_HOME", str(tmp_path))
    (tmp_path / "chips.toml").write_text('[[chips]]\nname = "M9"\nbandwidth_gbs = -1\n')
    with pytest.raises(RackFileError, match="1: bandwidth_gbs is -1: write more than 0") as told:
        rack_of_file(a_file(chip="M9"), "float16")
    assert "[[chips]] 1: tflops is missing" in str(told.value)


def test_a_gpu_has_its_memory_for_itself_and_macs_have_prices_and_watts() -> None:
    gpu, _ = rack_of_file(a_file(chip="H200", memory_gb=141.0), "float16").nodes
    assert gpu.memory_bytes == 141 << 30
    ultra, _ = rack_of_file(a_file(chip="M3 Ultra", memory_gb=512.0), "float16").nodes
    assert ultra.price_usd == 11_699
    assert ultra.power is not None
    assert ultra.power.decode_w == pytest.approx(155, rel=0.02)


@pytest.mark.parametrize(
    ("field", "words"), [("memory_gb", "b has no memory_gb"), ("chip", "b has no chip")]
)
def test_a_file_that_lacks_what_a_plan_needs(field: str, words: str) -> None:
    with pytest.raises(RackFileError, match=words):
        rack_of_file(a_file(**{field: None}), "float16")
