"""`tbcluster plan` as a user runs it: on racks that only files describe, and on this machine."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tbcluster.errors import (
    DoesNotFitError,
    PlanError,
    RackFileError,
    UnknownNodeError,
    UnsupportedModelError,
)
from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.commands import run
from tests.doubles.giants import write_quantized
from tests.doubles.hub import HubServer
from tests.doubles.own_speed import know_speed
from tests.doubles.server import ServeProcess

CONFIGS = Path(__file__).parent.parent.parent / "configs"
RACKS = sorted(CONFIGS.glob("*.toml"))
RING = CONFIGS / "4x-m3-ultra-ring.toml"
# Racks that hold 352 GiB of weights.
LARGE = {"4x-m3-ultra-ring", "4x-m3-ultra-mesh", "mac-and-gpu"}


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of DeepSeek-R1's shape."""
    return write_quantized(tmp_path_factory.mktemp("giants") / "R1")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("small") / "toy", LlamaSizes(num_hidden_layers=6))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A state folder that belongs to no cluster."""
    return tmp_path / "home"


@pytest.fixture
def known(home: Path, small: Path) -> Path:
    """The same, in which this machine's speed is known."""
    know_speed(home, small, None)
    return home


def invoke(home: Path, *arguments: object) -> Result:
    """`tbcluster plan`, in this process; what it raises is in the result."""
    words = ["plan", *map(str, arguments)]
    environment = {"TBCLUSTER_HOME": str(home), "COLUMNS": "100"}
    return CliRunner().invoke(app, words, env=environment)


def shown(home: Path, *arguments: object) -> str:
    done = invoke(home, *arguments)
    assert done.exit_code == 0, done.output or done.exception
    return done.stdout


@pytest.mark.parametrize("rack", RACKS, ids=lambda rack: rack.stem)
def test_r1_on_each_rack_of_the_examples(r1: Path, home: Path, rack: Path) -> None:
    done = invoke(home, r1, "--rack", rack)
    if rack.stem in LARGE:
        assert done.exit_code == 0, done.exception
        text = " ".join(done.stdout.split())
        assert "R1: 61 layers, 671 billion parameters (37.6 billion used by each token)" in text
        assert "tokens/s for one stream" in text
        assert "why:" in text
        assert "taken from a table of chips" in text
    else:
        assert isinstance(done.exception, DoesNotFitError)
        assert done.exception.missing_bytes > 5 * 2**30
        assert done.exception.remedies
    assert not home.exists(), "it looks, and makes nothing"


def test_all_of_it_as_json(small: Path, home: Path) -> None:
    told = json.loads(shown(home, small, "--rack", RING, "--json", "--streams", 3))
    plan = told["plan"]
    assert (plan["model"], plan["streams"]) == ("toy", 3)
    covered = [
        layer
        for stage in plan["replicas"][0]["stages"]
        for layer in range(stage["layers"]["start"], stage["layers"]["end"])
    ]
    assert covered == list(range(6))
    assert len(told["model"]["layers"]) == 6
    assert [node["name"] for node in told["rack"]["nodes"]] == [f"studio{i}" for i in range(1, 5)]
    assert {"source", "target", "latency_s", "bytes_per_s"} <= set(told["rack"]["links"][0])


def test_what_does_not_fit_is_told_as_a_list(r1: Path, home: Path) -> None:
    rack = CONFIGS / "single-mac.toml"
    done = run("plan", str(r1), "--rack", str(rack), env={"TBCLUSTER_HOME": str(home)})
    assert done.returncode == 1
    head, *remedies = done.stderr.strip().splitlines()
    assert "What would help:" in head
    assert len(remedies) >= 1
    assert all(line.startswith("  ") for line in remedies)


def test_what_does_not_fit_as_json(r1: Path, home: Path) -> None:
    done = invoke(home, r1, "--rack", CONFIGS / "single-mac.toml", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, set(told)) == (1, {"error", "missing_bytes", "remedies"})
    assert told["missing_bytes"] > 0


def test_this_machine_alone_has_two_stages(small: Path, known: Path) -> None:
    told = json.loads(shown(known, small, "--json"))
    (replica,) = told["plan"]["replicas"]
    assert len(replica["stages"]) == 2
    assert told["rack"]["nodes"][0]["speed"]["source"] == "measured"
    told = json.loads(shown(known, small, "--json", "--local", "--stages", 3))
    assert len(told["plan"]["replicas"][0]["stages"]) == 3


def test_the_bundled_model_is_planned_without_a_name(known: Path) -> None:
    assert "tbcluster-demo" in shown(known)


def test_a_saved_plan_is_used_as_it_was_changed(small: Path, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    text = shown(home, small, "--rack", RING, "--context", 512, "--stages", 2, "--save", file)
    assert "tokens/s" in text
    said = json.loads(file.read_text())
    assert said["model"] == str(small.resolve())
    said["replicas"] = [[{"node": "studio3", "layers": "0-4"}, {"node": "studio1", "layers": "5"}]]
    file.write_text(json.dumps(said))
    told = json.loads(shown(home, "--rack", RING, "--plan", file, "--json"))["plan"]
    assert [stage["node"] for stage in told["replicas"][0]["stages"]] == ["studio3", "studio1"]
    assert told["replicas"][0]["stages"][0]["layers"] == {"start": 0, "end": 5}
    assert (told["context"], told["is_by_hand"]) == (512, True)


def test_a_name_and_bits_are_enough(home: Path) -> None:
    text = " ".join(shown(home, "DeepSeek-R1", "--bits", 4, "--rack", RING).split())
    assert "DeepSeek-R1: 61 layers, 671 billion parameters" in text
    assert "351.7 GiB of weights (4-bit/64)" in text
    assert not home.exists(), "the hub was not asked"
    told = json.loads(shown(home, "gpt-oss-20b", "--rack", CONFIGS / "single-mac.toml", "--json"))
    assert told["model"]["weight_kind"] == "mxfp4"
    assert told["model"]["layers"][0]["attention"]["prompt_flops"] == 2 * 64 * 2 * 64


def test_bits_on_this_machine_are_those_of_the_weights(known: Path) -> None:
    told = json.loads(shown(known, "--bits", 16, "--json"))
    assert told["model"]["name"] == "tbcluster-demo"
    wrong = invoke(known, "--bits", 7).exception
    assert isinstance(wrong, UnsupportedModelError)
    assert "7 bits" in str(wrong)


def test_what_cannot_be_served_is_not_saved(small: Path, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    for arguments in ((small, "--bits", 4), (small / "config.json",), ("Qwen3-8B",)):
        refused = invoke(home, *arguments, "--rack", RING, "--save", file).exception
        assert isinstance(refused, PlanError)
        assert "a saved plan is for `tbcluster serve`" in str(refused)
    assert not file.exists()


@pytest.mark.parametrize("bits", [None, 4])
def test_of_a_model_on_the_hub_headers_are_fetched(
    small: Path, tmp_path: Path, bits: int | None
) -> None:
    shutil.copytree(small, tmp_path / "repos" / "lab" / "toy")
    with HubServer(tmp_path / "repos") as hub:
        asked = ("plan", "lab/toy", "--rack", str(RING), "--json")
        environment = {
            "TBCLUSTER_HOME": str(tmp_path / "home"),
            "HF_HOME": str(tmp_path / "cache"),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
        }
        done = run(*asked, *(("--bits", str(bits)) if bits else ()), env=environment)
        assert done.returncode == 0, done.stderr
        file_bytes = (small / "model.safetensors").stat().st_size
        assert 0 < hub.sent_of("model.safetensors") < file_bytes / 10
    told = json.loads(done.stdout)["model"]
    assert (told["name"], told["weight_kind"]) == ("lab/toy", "4-bit/64" if bits else "float32")


def test_mistakes_are_named(small: Path, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    shown(home, small, "--rack", RING, "--save", file)
    wrong = invoke(home, "/other", "--plan", file, "--rack", RING).exception
    assert isinstance(wrong, PlanError)
    assert "the plan is for" in str(wrong)
    said = json.loads(file.read_text())
    said["replicas"] = [[{"node": "studio9", "layers": "0-5"}]]
    file.write_text(json.dumps(said))
    wrong = invoke(home, "--plan", file, "--rack", RING).exception
    assert isinstance(wrong, PlanError | UnknownNodeError)
    assert "studio9" in str(wrong)
    assert isinstance(invoke(home, small, "--rack", tmp_path / "none").exception, RackFileError)
    assert invoke(home, small, "--rack", RING, "--local").exit_code == 2


def test_serve_does_what_the_file_says(known: Path, tmp_path: Path) -> None:
    home, file = known, tmp_path / "plan.json"
    shown(home, "--stages", 3, "--context", 300, "--save", file)
    said = json.loads(file.read_text())
    node = said["replicas"][0][0]["node"]
    cut = [{"node": node, "layers": "0"}, {"node": node, "layers": "1-7"}]
    said["replicas"] = [cut, [{"node": node, "layers": "0-7"}]]
    file.write_text(json.dumps(said))
    with ServeProcess("--plan", str(file), env={"TBCLUSTER_HOME": str(home)}) as server:
        planned, _, loaded = server.output.partition("tokens/s for one stream")
        assert re.search(rf"{node} +0 ", planned)
        assert re.search(rf"{node} +1-7 ", planned)
        flat = " ".join(loaded.split())
        assert "300 tokens of context for each of 4 streams" in flat
        assert "1 (layers 1-7" in flat, server.output
        assert "2 (layers 0-7" in flat, server.output
