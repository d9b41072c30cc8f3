"""`tbcluster models`, `load` and `unload` against a server that begins with none loaded."""

import json
from collections.abc import Iterator

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tbcluster.errors import EndpointError
from tests.cli.test_commands import run
from tests.doubles.checkpoints import write_llama
from tests.doubles.server import ServeProcess

# A module-wide server: the tests that use it go to one process.
pytestmark = pytest.mark.xdist_group("commands on models")


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


def test_what_is_wrong_is_a_sentence(server: ServeProcess) -> None:
    unknown = run("load", "gpt-4", "--url", f"{server.url}/v1")
    assert unknown.returncode == 1
    assert "'gpt-4' is not served here: use 'broken' or 'owner/toy'" in unknown.stderr
    nobody = invoke("models", url="http://127.0.0.1:1")
    assert "no tbcluster server answers at http://127.0.0.1:1" in error_of(nobody)
    assert "is no address" in error_of(invoke("models", url="127.0.0.1"))
