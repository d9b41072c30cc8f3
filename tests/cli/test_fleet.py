"""`tbcluster fleet` as a user runs it."""

import json
from pathlib import Path

import pytest

from tests.doubles.commands import run_here
from tests.doubles.giants import write_quantized

EXAMPLE = Path(__file__).parents[2] / "configs" / "fleets" / "three-regions.toml"


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of DeepSeek-R1's shape."""
    return str(write_quantized(tmp_path_factory.mktemp("giants") / "R1"))


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"TBCLUSTER_HOME": str(tmp_path / "home"), "COLUMNS": "130"}


def test_the_example_as_a_table(r1: str, env: dict[str, str]) -> None:
    done = run_here("fleet", r1, str(EXAMPLE), env=env)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    named = {(row[0], row[1]): row[2:] for row in rows if len(row) > 5}
    assert named["west", "office"][:2] == ["3", "12"]
    assert named["west", "mini-room"][:3] == ["1", "40", "36"]
    assert named["north", "shop"][:4] == ["4", "8", "8", "0"]
    assert ["north", "2", "shop", "joined", "4", "2"] in [row[:6] for row in rows]
    assert "mini-room: 4 nodes are left over" in done.stdout
    assert "shop (4 sites): it holds no copy alone" in done.stdout


def test_as_json_every_copy_is_named(r1: str, env: dict[str, str]) -> None:
    done = run_here("fleet", r1, str(EXAMPLE), "--json", "--streams", "2", env=env)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    sites = {site["name"]: site for region in told["regions"] for site in region["sites"]}
    copies = [copy for site in sites.values() for copy in site["copies"]]
    joined = [one for region in told["regions"] for one in region["joined"]]
    copies += [copy for one in joined for copy in one["copies"]]
    assert told["copies"] == len(copies)
    assert told["tokens_per_s"] == pytest.approx(sum(copy["tokens_per_s"] for copy in copies))
    assert [one["sites"] for one in joined] == [["shop-1", "shop-2"], ["shop-3", "shop-4"]]
    assert sites["shop-1"]["joined"] == "north 1"
    stages = sites["office-1"]["copies"][0]["stages"]
    assert {stage["node"] for stage in stages} <= {f"studio{at}" for at in range(1, 5)}
    layers = [int(part) for stage in stages for part in stage["layers"].split("-")]
    assert (layers[0], layers[-1]) == (0, 60)


def test_a_fleet_that_holds_none_ends_with_1(r1: str, env: dict[str, str], tmp_path: Path) -> None:
    small = tmp_path / "small.toml"
    small.write_text(
        'name = "small"\n[[sites]]\nname = "desk"\nregion = "west"\n'
        'nodes = [{ chip = "M4", memory_gb = 32 }]\n'
    )
    done = run_here("fleet", r1, str(small), env=env)
    assert done.returncode == 1
    assert "0 copies of R1 on 0 of 1 node" in done.stdout
    assert "desk: it holds no copy alone" in done.stdout


def test_errors_name_the_file(r1: str, env: dict[str, str], tmp_path: Path) -> None:
    done = run_here("fleet", r1, str(tmp_path / "no.toml"), env=env)
    assert done.returncode == 1
    assert "no.toml cannot be read" in done.stderr
