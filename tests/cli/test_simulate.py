"""`tbcluster simulate` as a user runs it, on racks that only files describe."""

import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tbcluster.cli.charts import window
from tbcluster.cli.main import app
from tbcluster.errors import OutputFileError, RackFileError, SimulationError

CONFIGS = Path(__file__).parents[2] / "configs"
MINIS, RING = CONFIGS / "2x-m4-pro.toml", CONFIGS / "4x-m3-ultra-ring.toml"
MODEL = "Qwen3-8B"
SHORT = ("--prompt", "64-256", "--answer", "16", "--requests", "12")


def invoke(*arguments: object, home: Path) -> Result:
    """`tbcluster simulate`, in this process; what it raises is in the result."""
    words = ["simulate", *map(str, arguments)]
    environment = {"TBCLUSTER_HOME": str(home), "COLUMNS": "120", "HF_HUB_OFFLINE": "1"}
    return CliRunner().invoke(app, words, env=environment)


def shown(*arguments: object, home: Path) -> str:
    done = invoke(*arguments, home=home)
    assert done.exit_code == 0, done.output or done.exception
    return done.stdout


def facts(*arguments: object, home: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(shown(*arguments, "--json", home=home))
    return found


def test_people_see_speeds_times_stages_and_energy(tmp_path: Path) -> None:
    text = shown(MODEL, "--bits", 4, "--rack", MINIS, *SHORT, home=tmp_path)
    for what in ("throughput:", "first token:", "whole answers:", "energy:", "idle", "mini1"):
        assert what in text
    assert "taken from a table of chips, not measured" in text


def test_programs_get_all_of_it_and_equal_seeds_give_equal_results(tmp_path: Path) -> None:
    given = (MODEL, "--bits", 4, "--rack", MINIS, *SHORT, "--seed", 7)
    one, other = facts(*given, home=tmp_path), facts(*given, home=tmp_path)
    assert one == other
    result = one["result"]
    assert isinstance(result, dict)
    assert result["num_tokens"] == 12 * 16
    assert result["num_refused"] == 0
    assert result["watts"] > 0
    assert one["speeds"] == {"mini1": "catalogue", "mini2": "catalogue"}


def test_racks_are_compared(tmp_path: Path) -> None:
    text = shown(MODEL, "--bits", 4, "--rack", MINIS, "--compare", RING, *SHORT, home=tmp_path)
    assert "2x-m4-pro" in text
    assert "4x-m3-ultra-ring" in text
    for column in ("tokens/s", "first token", "context", "watts", "price"):
        assert column in text


def test_a_rack_that_is_too_small_is_told_and_the_others_are_compared(tmp_path: Path) -> None:
    large = ("DeepSeek-R1", "--bits", 4, *SHORT)
    done = invoke(*large, "--rack", RING, "--compare", MINIS, home=tmp_path)
    assert done.exit_code == 0, done.exception
    assert "2x-m4-pro: DeepSeek-R1 does not fit" in done.output
    assert "4x-m3-ultra-ring" in done.stdout
    none = invoke(*large, "--rack", MINIS, "--compare", MINIS, home=tmp_path)
    assert "fits none of these racks" in str(none.exception)


def test_a_sweep_and_its_chart(tmp_path: Path) -> None:
    chart = tmp_path / "sweep.svg"
    given = (MODEL, "--bits", 4, "--rack", MINIS, "--sweep", "1,4", "--chart", chart, *SHORT)
    text = shown(*given, home=tmp_path)
    assert re.search(r"^ *1 .*^ *4 ", text, re.MULTILINE | re.DOTALL)
    assert chart.read_text().lstrip().startswith("<?xml")
    rows = json.loads(shown(*given, "--json", home=tmp_path))
    assert [row["clients"] for row in rows] == [1, 4]
    assert rows[1]["result"]["tokens_per_s"] > rows[0]["result"]["tokens_per_s"]


def test_a_timeline(tmp_path: Path) -> None:
    chart = tmp_path / "run.png"
    shown(MODEL, "--bits", 4, "--rack", MINIS, *SHORT, "--chart", chart, home=tmp_path)
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_a_trace_and_a_failure(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    line = {"prompt_tokens": 100, "output_tokens": 200}
    trace.write_text("\n".join(json.dumps({"arrival_s": at, **line}) for at in (0, 1, 2)))
    given = (MODEL, "--bits", 4, "--rack", MINIS, "--trace", trace, "--replicas", 1, "--stages", 2)
    whole = facts(*given, home=tmp_path)["result"]
    lost = facts(*given, "--fail", "mini2@1.5", home=tmp_path)["result"]
    assert isinstance(whole, dict)
    assert isinstance(lost, dict)
    assert lost["num_tokens"] == whole["num_tokens"] == 600
    assert lost["seconds"] > whole["seconds"] + 2
    assert any("mini2 is lost" in line for line in lost["happenings"])


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    done = invoke(MODEL, "--rack", MINIS, "--trace", tmp_path / "none.jsonl", home=tmp_path)
    assert isinstance(done.exception, SimulationError)
    assert "cannot be read" in str(done.exception)


@pytest.mark.parametrize(
    ("given", "error", "named"),
    [
        (("--prompt", "many"), SimulationError, "'many' is no number of tokens"),
        (("--sweep", "1,x"), SimulationError, "'1,x'"),
        (("--fail", "mini9@3"), SimulationError, "mini9"),
        (("--fail", "mini2"), SimulationError, "NODE@SECONDS"),
        (("--chart", "run.gif"), OutputFileError, ".png, .svg, .pdf"),
        (("--chart", "no/such/run.svg"), OutputFileError, "there is no folder"),
        (("--clients", "2", "--rate", "3"), None, "give one of"),
        (("--trace", "none.jsonl"), None, "leave out --requests"),
        (("--compare", "none.toml"), RackFileError, "none.toml"),
        (("--local",), None, "leave out --local"),
        (("--shared", "65"), None, "65 tokens are more than a prompt of 64"),
    ],
)
def test_what_cannot_be_is_told_with_its_value(
    given: tuple[str, ...], error: type[Exception] | None, named: str, tmp_path: Path
) -> None:
    done = invoke(MODEL, "--bits", 4, "--rack", MINIS, *SHORT, *given, home=tmp_path)
    assert done.exit_code != 0
    if error is not None:
        assert isinstance(done.exception, error)
        assert named in str(done.exception)
    else:
        assert named in done.output


def test_without_matplotlib_the_way_out_is_told_before_anything_is_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = invoke(
        MODEL, "--bits", 4, "--rack", MINIS, *SHORT, "--chart", tmp_path / "a.svg", home=tmp_path
    )
    assert isinstance(done.exception, OutputFileError)
    assert f"{sys.executable} -m pip install" in str(done.exception)


def test_the_window_of_a_timeline_is_in_the_run() -> None:
    spans = [(float(at), at + 1.0) for at in range(1000)]
    begin_s, end_s = window(spans, 2)
    assert 0 < begin_s < end_s < 1000
    assert window(spans[:1], 1) == (0.0, 1.0)
