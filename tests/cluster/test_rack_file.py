"""Files that describe a rack."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.own_chips import ChipTable
from tbcluster.cluster.rack_file import RackFile, RackLink, RackNode, read_rack_file
from tbcluster.errors import RackFileError

CONFIGS = Path(__file__).parent.parent.parent / "configs"
# Chip and GPU cores -> memory sizes that Apple sells, GB.
SOLD: dict[tuple[str, int | None], set[int]] = {
    ("M2 Pro", 19): {16, 32},
    ("M3 Ultra", 60): {96, 256},
    ("M3 Ultra", 80): {96, 256, 512},
    ("M4 Max", 40): {48, 64, 128},
    ("M4 Pro", 16): {24, 48, 64},
    ("M4 Pro", 20): {24, 48, 64},
    # A GPU's cores are not told apart.
    ("RTX PRO 6000", None): {96},
}
GOOD = """
name = "minis"
head = "mini1"
[[nodes]]
name = "mini1"
addresses = ["192.168.1.11", "fe80::1%en3", "mini1.local:4000"]
memory_gb = 64
[[nodes]]
name = "mini2"
chip = "M4 Pro"
[[links]]
between = ["mini1", "mini2"]
kind = "thunderbolt5"
"""


def read(folder: Path, text: str) -> RackFile:
    path = folder / "rack.toml"
    path.write_text(text, encoding="utf-8")
    return read_rack_file(path)


def test_a_rack_file(tmp_path: Path) -> None:
    rack = read(tmp_path, GOOD)
    assert (rack.name, rack.control_port, rack.head) == ("minis", 29640, "mini1")
    assert rack.nodes[1] == RackNode(name="mini2", chip="M4 Pro")
    assert rack.nodes[0].memory_gb == 64
    assert rack.links == (RackLink(between=("mini1", "mini2"), kind="thunderbolt5"),)
    assert rack.head_addresses() == (
        "192.168.1.11:29640",
        "[fe80::1%en3]:29640",
        "mini1.local:4000",
    )


def test_its_port_is_the_one_that_is_dialled(tmp_path: Path) -> None:
    rack = read(tmp_path, f"control_port = 5000\n{GOOD}")
    assert rack.head_addresses()[0] == "192.168.1.11:5000"


@pytest.mark.parametrize(
    ("was", "becomes", "words"),
    [
        ('name = "minis"', "", "name is missing: add it"),
        ('name = "minis"', "name = 3", "name is 3: write a text in quotes"),
        ('name = "minis"', 'name = "a b"', "name: 'a b' is no name: use up to 64 of A-Z"),
        ('head = "mini1"', 'head = "mini3"', "head is 'mini3', which is none of the nodes: take "),
        ('head = "mini1"', 'heads = "mini1"', "heads is no field of a rack file: remove it"),
        ('head = "mini1"', 'head = "mini1"\ncontrol_port = 65535', "write 65534 or less"),
        ('head = "mini1"', 'head = "mini1"\ncontrol_port = "a"', "'a': write a whole number"),
        ('name = "mini2"', 'name = "mini1"', "two nodes are called 'mini1'"),
        ('name = "mini2"', "", "[[nodes]] 2: name is missing"),
        ('chip = "M4 Pro"', "chip = 4", "[[nodes]] 2: chip is 4: write a text in quotes"),
        ('chip = "M4 Pro"', 'chip = " M4"', "write a name such as"),
        ('chip = "M4 Pro"', "gpu_cores = 0", "[[nodes]] 2: gpu_cores is 0: write more than 0"),
        ('chip = "M4 Pro"', "gpu_cores = 1.5", "gpu_cores is 1.5: write a whole number"),
        ('chip = "M4 Pro"', "storage_gb = nan", "storage_gb is nan: write a number"),
        ('chip = "M4 Pro"', "memory = 3", "[[nodes]] 2: memory is no field"),
        ("memory_gb = 64", "memory_gb = true", "[[nodes]] 1: memory_gb is True: write a number"),
        ('"192.168.1.11"', '"192.168.1.300"', "[[nodes]] 1: addresses, item 1: '192.168.1.300'"),
        ('"fe80::1%en3"', '"fe80::1%"', "addresses, item 2: 'fe80::1%' is no IPv6 address"),
        ('"192.168.1.11"', "7", "[[nodes]] 1: addresses, item 1 is 7: write a text"),
        ('between = ["mini1", "mini2"]', 'between = ["mini1"]', "between, item 2 is missing"),
        ('between = ["mini1", "mini2"]', 'between = ["mini1", "a"]', "[[links]] 1: between names"),
        (
            'between = ["mini1", "mini2"]',
            'between = ["mini2", "mini2"]',
            "[[links]] 1: between names 'mini2' twice",
        ),
        ('between = ["mini1", "mini2"]', 'between = ["a", "b", "c"]', "write no more than 2"),
        ('"thunderbolt5"', '"tb5"', "[[links]] 1: kind is 'tb5': write 'thunderbolt5', "),
        ('"thunderbolt5"', '"wifi"\ngbps = -1', "[[links]] 1: gbps is -1: write more than 0"),
        ("[[links]]", "[links]", "links is {'between'"),
        ('chip = "M4 Pro"', "chip = ", "is no TOML: Invalid value (at line 10"),
        ('chip = "M4 Pro"', 'name = "again"', "is no TOML: Cannot overwrite a value (at line 10"),
    ],
)
def test_a_fault_is_named_with_its_place_and_value(
    tmp_path: Path, was: str, becomes: str, words: str
) -> None:
    assert was in GOOD
    with pytest.raises(RackFileError) as raised:
        read(tmp_path, GOOD.replace(was, becomes, 1))
    assert words in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / "rack.toml"))


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RackFileError) as raised:
        read(tmp_path, GOOD.replace('"minis"', "1").replace("64", "-64").replace('"M4 Pro"', "4"))
    assert len(str(raised.value).splitlines()) == 4


def test_a_rack_without_nodes(tmp_path: Path) -> None:
    with pytest.raises(RackFileError, match=r"add a \[\[nodes\]\] table"):
        read(tmp_path, 'name = "a"\nhead = "b"\nnodes = []')


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RackFileError, match=r"none\.toml cannot be read: No such file"):
        read_rack_file(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(RackFileError, match=r"latin\.toml is no text in UTF-8"):
        read_rack_file(tmp_path / "latin.toml")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(RackFileError, match=r"deep\.toml is no TOML"):
        read_rack_file(tmp_path / "deep.toml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_describe_racks_that_can_be_bought(path: Path) -> None:
    rack = read_rack_file(path)
    assert rack.head_addresses()
    for node in rack.nodes:
        assert node.chip is not None
        assert node.memory_gb in SOLD[node.chip, node.gpu_cores]
    assert f"[{path.name}]({path.name})" in (CONFIGS / "README.md").read_text()


def test_the_examples_are_cabled_as_their_names_say() -> None:
    ring = read_rack_file(CONFIGS / "4x-m3-ultra-ring.toml")
    ends = sorted(name for link in ring.links for name in link.between)
    assert ends == sorted([node.name for node in ring.nodes] * 2)
    mesh = read_rack_file(CONFIGS / "4x-m3-ultra-mesh.toml")
    pairs = {frozenset(link.between) for link in mesh.links}
    assert len(pairs) == len(mesh.links) == 6
    assert len(read_rack_file(CONFIGS / "2x-m4-pro.toml").nodes) == 2
    assert len(read_rack_file(CONFIGS / "single-mac.toml").nodes) == 1


def test_every_field_is_explained() -> None:
    text = (CONFIGS / "README.md").read_text()
    for table in (RackFile, RackNode, RackLink, ChipTable):
        for field in table.model_fields:
            assert f"`{field}`" in text or f"`[[{field}]]`" in text


names = st.from_regex(r"\A[A-Za-z0-9._-]{1,64}\Z")
sizes = st.none() | st.floats(0.001, 1e6) | st.integers(1, 10**6)
addresses = st.sampled_from(["10.0.0.1", "mini.local:3", "fd00::7", "[fe80::1%en3]:29640"])


@st.composite
def racks(draw: st.DrawFn) -> dict[str, Any]:
    """What a rack file may hold, less what was left out."""
    known = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    nodes = [
        {
            "name": name,
            "addresses": draw(st.lists(addresses, max_size=3)),
            "chip": draw(st.none() | st.from_regex(r'\A[^\s"]([^\n\x7f]{0,20}[^\s"])?\Z')),
            "memory_gb": draw(sizes),
            "gpu_cores": draw(st.none() | st.integers(1, 100)),
        }
        for name in known
    ]
    pair = st.lists(st.sampled_from(known), min_size=2, max_size=2, unique=True)
    kinds = st.sampled_from(["thunderbolt5", "ethernet2.5", "wifi"])
    link = st.fixed_dictionaries({"between": pair, "kind": kinds, "gbps": sizes})
    links = draw(st.lists(link, max_size=3)) if len(known) > 1 else []
    port = draw(st.integers(1, 65534))
    head = draw(st.sampled_from(known))
    rack = {"name": draw(names), "control_port": port, "head": head, "nodes": nodes, "links": links}
    return {key: value for key, value in rack.items() if value != []}


def as_toml(rack: dict[str, Any]) -> str:
    """JSON's texts, numbers and lists are TOML's too, but for the delete character."""

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    def lines(table: dict[str, Any]) -> str:
        return "".join(
            f"{key} = {text(value)}\n" for key, value in table.items() if value is not None
        )

    top = {key: value for key, value in rack.items() if key not in ("nodes", "links")}
    tables = [
        f"[[{kind}]]\n{lines(table)}" for kind in ("nodes", "links") for table in rack.get(kind, [])
    ]
    return lines(top) + "".join(tables)


@given(racks())
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, rack: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    found = read(folder, as_toml(rack)).model_dump(mode="json", exclude_defaults=False)
    for key, value in rack.items():
        if key not in ("nodes", "links"):
            assert found[key] == value
            continue
        for was, became in zip(value, found[key], strict=True):
            assert {name: became[name] for name in was} == was


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_rack_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(content)
    with pytest.raises(RackFileError):
        read_rack_file(path)
