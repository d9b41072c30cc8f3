"""`tbcluster capacity` as a user runs it: R1 on racks that nobody has."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.commands import run_here
from tests.doubles.giants import write_quantized

CONFIGS = Path(__file__).parent.parent.parent / "configs"
KINDS = ("--node", "M4 Pro:64", "--node", "M3 Ultra:512", "--node", "M4 Max:128")


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of DeepSeek-R1's shape."""
    return str(write_quantized(tmp_path_factory.mktemp("giants") / "R1"))


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"TBCLUSTER_HOME": str(tmp_path / "home"), "COLUMNS": "130"}


def facts(env: dict[str, str], *words: str) -> dict[str, Any]:
    done = run_here("capacity", *words, "--json", env=env)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def speeds(env: dict[str, str], model: str) -> dict[str, float]:
    """Tokens a second of one stream on the smallest rack of each kind."""
    racks = facts(env, model, "--tokens-per-s", "0.1", *KINDS)["racks"]
    return {one["chip"]: one["figures"]["stream_tokens_per_s"] for one in racks}


def test_the_smallest_rack_of_each_kind(r1: str, env: dict[str, str]) -> None:
    rates = speeds(env, r1)
    assert rates["M3 Ultra"] > rates["M4 Max"] > rates["M4 Pro"]
    told = facts(env, r1, "--tokens-per-s", f"{0.99 * rates['M4 Max']}", *KINDS)
    assert [one["is_enough"] for one in told["racks"]] == [True, True, False]
    racks = {one["chip"]: one for one in told["racks"]}
    assert racks["M3 Ultra"]["figures"]["num_nodes"] == 1
    assert racks["M4 Max"]["figures"]["num_nodes"] == 4
    mini = racks["M4 Pro"]
    assert mini["figures"] is None
    assert mini["best"]["num_nodes"] == 9
    assert "9 nodes hold the model, and one stream never gets more than" in mini["because"]


def test_it_is_shown_as_a_table(r1: str, env: dict[str, str]) -> None:
    wanted = f"{0.99 * speeds(env, r1)['M4 Max']:.3g}"
    done = run_here("capacity", r1, "--tokens-per-s", wanted, *KINDS, env=env)
    assert done.returncode == 0, done.stderr
    assert f"asked for: {wanted} tokens/s for one stream, room for 1 stream" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["M3", "Ultra", "512", "GB", "1"] in [row[:5] for row in rows]
    (mini,) = (row for row in rows if row[:4] == ["M4", "Pro", "64", "GB"])
    assert mini[4] == "9"
    assert mini[-3:] == ["not", "fast", "enough"]
    assert "another node only adds a hop" in done.stdout


def test_all_streams_together(r1: str, env: dict[str, str]) -> None:
    words = (r1, "--total", "--streams", "16", "--context", "2048", "--node", "M3 Ultra:512")
    few = facts(env, *words, "--tokens-per-s", "1")["racks"][0]["figures"]
    assert few["num_nodes"] == 1
    wanted = 1.2 * few["tokens_per_s"]
    many = facts(env, *words, "--tokens-per-s", f"{wanted}")["racks"][0]["figures"]
    assert many["num_nodes"] > 1
    assert many["tokens_per_s"] >= wanted


def test_a_model_of_which_only_the_name_is_there(env: dict[str, str]) -> None:
    words = ("DeepSeek-R1", "--tokens-per-s", "1", "--node", "M3 Ultra:512")
    racks = [facts(env, *words, "--bits", bits)["racks"][0]["figures"] for bits in ("4", "8")]
    assert [figures["num_nodes"] for figures in racks] == [1, 2]


def test_none_does_however_many(r1: str, env: dict[str, str]) -> None:
    words = ("--tokens-per-s", "1", "--node", "M4 Pro:64", "--max-nodes", "4")
    (one,) = facts(env, r1, *words)["racks"]
    assert (one["figures"], one["because"]) == (None, "4 nodes do not hold it")


def test_what_a_mac_adds(r1: str, env: dict[str, str]) -> None:
    ring = ("--rack", str(CONFIGS / "2x-m4-pro.toml"))
    told = facts(env, r1, *ring, "--add", "M3 Ultra:512", "--add", "M4 Pro:64")
    assert told["now"] is None
    assert told["then"]["num_nodes"] == 4
    mesh = ("--rack", str(CONFIGS / "4x-m3-ultra-mesh.toml"), "--add", "M4 Pro:64")
    told = facts(env, r1, *mesh)
    assert told["now"]["num_nodes"] == 4
    assert told["then"]["num_nodes"] == 5
    shown = run_here("capacity", r1, *mesh, env=env)
    assert shown.returncode == 0, shown.stderr
    assert "with M4 Pro 64 GB" in shown.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "say how fast it shall be"),
        (("--tokens-per-s", "0"), "0 tokens/s: ask for more than 0"),
        (("--tokens-per-s", "nan"), "nan tokens/s: ask for more than 0"),
        (("--tokens-per-s", "1e9"), "at most 1,000,000"),
        (("--tokens-per-s", "9", "--node", "M4 Por:64"), "'M4 Por' is not known"),
        (("--tokens-per-s", "9", "--node", "64"), "'64' is no kind of machine"),
        (("--tokens-per-s", "9", "--link", "tin"), "'tin' is no kind of link"),
        (("--tokens-per-s", "9", "--context", "999999"), "was made for 163,840 at most"),
        (("--add", "M4 Pro:64"), "name its file with --rack"),
        (("--rack", "x.toml"), "say what to --add"),
        (("--rack", "x.toml", "--add", "M4:32", "--total"), "leave out --tokens-per-s"),
    ],
)
def test_errors_name_the_value_and_the_way_out(
    r1: str, env: dict[str, str], words: tuple[str, ...], told: str
) -> None:
    done = run_here("capacity", r1, *words, env=env)
    assert done.returncode != 0
    assert told in " ".join(done.stderr.replace("│", " ").split())
