"""Fleet files: what they describe, and how faults are told."""

import re
from pathlib import Path

import pytest

from tbcluster.cluster.fleet_file import fleet_of_file, read_fleet_file
from tbcluster.errors import RackFileError

EXAMPLE = Path(__file__).parents[2] / "configs" / "fleets" / "three-regions.toml"
KIND = "4-bit/64"
SITE = '[[sites]]\nname = "a"\nregion = "west"\n'
NODES = 'nodes = [{ chip = "M4 Pro", memory_gb = 64, count = 3 }]\n'


def written(folder: Path, text: str, head: str = 'name = "fleet"\n') -> Path:
    path = folder / "fleet.toml"
    path.write_text(head + text, encoding="utf-8")
    return path


def test_the_example_is_read() -> None:
    fleet = fleet_of_file(read_fleet_file(EXAMPLE), EXAMPLE.parent, KIND)
    sizes = {site.name: (site.region, site.kind, len(site.rack.nodes)) for site in fleet.sites}
    assert sizes["office-2"] == ("west", "office", 4)
    assert sizes["mini-room"] == ("west", "mini-room", 40)
    assert sizes["lab-1"] == ("east", "lab", 12)
    assert len(sizes) == 10
    link = fleet.region_links["north"]
    assert (link.latency_s, link.bytes_per_s) == pytest.approx((1.5e-3, 1.175e9))


def test_equal_sites_share_a_rack(tmp_path: Path) -> None:
    path = written(tmp_path, SITE + "count = 3\n" + NODES)
    first, *others = fleet_of_file(read_fleet_file(path), tmp_path, KIND).sites
    assert [site.name for site in (first, *others)] == ["a-1", "a-2", "a-3"]
    assert all(site.rack is first.rack for site in others)


@pytest.mark.parametrize(
    ("link", "kinds"),
    [
        ('link = "thunderbolt5"\n', {"thunderbolt5"}),
        ("", {"thunderbolt5"}),
        ('link = "ethernet10"\n', {"ethernet10"}),
    ],
)
def test_links_of_listed_nodes(tmp_path: Path, link: str, kinds: set[str]) -> None:
    path = written(tmp_path, SITE + NODES + link)
    (site,) = fleet_of_file(read_fleet_file(path), tmp_path, KIND).sites
    assert [node.name for node in site.rack.nodes] == [f"m4-pro-64-{n}" for n in (1, 2, 3)]
    assert [node.is_head for node in site.rack.nodes] == [True, False, False]
    assert {one.kind for one in site.rack.links.values()} == kinds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "sites is missing: add it"),
        ("sites = []\n", "it has no sites: add a [[sites]] table"),
        (SITE, "site 'a': give it a rack file or nodes, one of them"),
        (SITE + NODES + 'rack = "x.toml"\n', "site 'a': give it a rack file or nodes"),
        (SITE + 'rack = "x.toml"\nlink = "wifi"\n', "leave link out"),
        (SITE + NODES + "count = 0\n", "[[sites]] 1: count is 0: write more than 0"),
        (SITE + NODES + "count = 100001\n", "count is 100001: write 100000 or less"),
        (SITE + NODES + 'link = "token ring"\n', "link is 'token ring': write 'thunderbolt5'"),
        (SITE + NODES + "size = 3\n", "[[sites]] 1: size is no field of a fleet file"),
        (SITE + 'nodes = [{ chip = "M4" }]\n', "nodes, item 1, memory_gb is missing"),
        (SITE + NODES + SITE + NODES, "two sites are called 'a'"),
        (
            SITE + NODES + '[[regions]]\nname = "east"\nlatency_ms = 1\ngbps = 1\n',
            "no site is in 'east': take one of west",
        ),
        (SITE + NODES + '[[regions]]\nname = "west"\ngbps = 1\n', "latency_ms is missing"),
        (
            SITE + NODES + '[[regions]]\nname = "west"\nlatency_ms = "1"\ngbps = 1\n',
            "write a number",
        ),
        ("[[sites\n", "is no TOML"),
    ],
)
def test_faults_name_the_place_and_the_way_out(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(RackFileError, match=re.escape(words)) as caught:
        read_fleet_file(path)
    assert str(path) in str(caught.value)


def test_racks_and_chips_that_are_not_there(tmp_path: Path) -> None:
    missing = read_fleet_file(written(tmp_path, SITE + 'rack = "gone.toml"\n'))
    with pytest.raises(RackFileError, match=r"site 'a': .*gone\.toml cannot be read"):
        fleet_of_file(missing, tmp_path, KIND)
    unknown = read_fleet_file(written(tmp_path, SITE + NODES.replace("M4 Pro", "M4 Por")))
    with pytest.raises(RackFileError, match=r"site 'a': .*M4 Por"):
        fleet_of_file(unknown, tmp_path, KIND)
    with pytest.raises(RackFileError, match="cannot be read"):
        read_fleet_file(tmp_path / "no.toml")
