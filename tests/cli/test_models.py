"""`tbcluster models`, `load` and `unload` against a server that begins with none loaded."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tbcluster.cli.models import state_words, watching
from tbcluster.errors import EndpointError
from tests.doubles.checkpoints import write_llama
from tests.doubles.commands import run_here
from tests.doubles.server import ServeProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("models")
    write_llama(folder / "owner" / "toy", with_tokenizer=True)
    broken = folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    options = ("--models", str(folder), "--kv-memory", "64MiB", "--stages", "1", "--local")
    with ServeProcess(*options) as running:
        yield running


def invoke(*arguments: str, url: str) -> Result:
    """A command in this process; what it raises is in the result."""
    return CliRunner().invoke(app, arguments, env={"TBCLUSTER_URL": url})


def error_of(result: Result) -> str:
    assert isinstance(result.exception, EndpointError)
    return str(result.exception)


def test_models_are_listed_loaded_and_unloaded(server: ServeProcess) -> None:
    assert f"tbcluster load NAME --url {server.url}" in server.output

    def states() -> dict[str, str]:
        listed = json.loads(invoke("models", "--json", url=server.url).stdout)
        return {model["id"]: model["status"]["value"] for model in listed}

    assert states() == {"broken": "unloaded", "owner/toy": "unloaded"}
    loaded = invoke("load", "owner/toy", url=server.url)
    assert (loaded.exit_code, loaded.stderr.strip()) == (0, "owner/toy is loaded.")
    assert "names no model_type" in error_of(invoke("load", "broken", url=server.url))
    shown = invoke("models", url=server.url).stdout
    assert "owner/toy" in shown
    assert "2,048" in shown
    assert "unloaded: " in shown
    unloaded = invoke("unload", "owner/toy", "--force", url=server.url)
    assert (unloaded.exit_code, unloaded.stderr.strip()) == (0, "owner/toy is unloaded.")
    assert states() == {"broken": "unloaded", "owner/toy": "unloaded"}


def test_who_stops_watching_a_load_is_told_that_it_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyboardInterrupt), watching("toy", "http://mini:1"):
        raise KeyboardInterrupt
    said = " ".join(capsys.readouterr().err.split())
    assert "goes on loading toy: `tbcluster unload toy --url http://mini:1` stops it" in said


def test_a_table_has_the_first_sentence_of_a_reason() -> None:
    words = "big does not fit: it needs 3 GiB, and 2.5 GiB are there; 1 GiB is missing; do this"
    assert state_words({"value": "unloaded", "error": words}) == (
        "unloaded: big does not fit: it needs 3 GiB, and 2.5 GiB are there"
    )
    assert len(state_words({"value": "unloaded", "error": "x" * 1000})) < 120


def test_notes_that_nobody_reads_end_nothing() -> None:
    code = (
        "from tbcluster.cli.loading import say\nfor _ in range(3): say('a note')\nprint('goes on')"
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=writing, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stdout) == (0, b"goes on\n")


def test_what_is_wrong_is_a_sentence(server: ServeProcess) -> None:
    unknown = run_here("load", "gpt-4", "--url", f"{server.url}/v1")
    assert unknown.returncode == 1
    assert "'gpt-4' is not served here: use 'broken' or 'owner/toy'" in unknown.stderr
    nobody = invoke("models", url="http://127.0.0.1:1")
    assert "no tbcluster server answers at http://127.0.0.1:1" in error_of(nobody)
    assert "is no address" in error_of(invoke("models", url="127.0.0.1"))
