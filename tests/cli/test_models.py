"""`tbcluster models`, `load` and `unload` against a server that begins with none loaded."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_commands import run
from tests.doubles.checkpoints import write_llama
from tests.doubles.server import ServeProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    folder = tmp_path_factory.mktemp("models")
    write_llama(folder / "owner" / "toy", with_tokenizer=True)
    broken = folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    with ServeProcess("--models", str(folder), "--kv-memory", "64MiB", "--local") as running:
        yield running


def test_models_are_listed_loaded_and_unloaded(server: ServeProcess) -> None:
    at = {"TBCLUSTER_URL": server.url}
    assert f"tbcluster load NAME --url {server.url}" in server.output

    def states() -> dict[str, str]:
        listed = json.loads(run("models", "--json", env=at).stdout)
        return {model["id"]: model["status"]["value"] for model in listed}

    assert states() == {"broken": "unloaded", "owner/toy": "unloaded"}
    loaded = run("load", "owner/toy", env=at)
    assert (loaded.returncode, loaded.stderr.strip()) == (0, "owner/toy is loaded.")
    failed = run("load", "broken", env=at)
    assert failed.returncode == 1
    assert "names no model_type" in failed.stderr
    shown = run("models", env=at).stdout
    assert "owner/toy" in shown
    assert "2,048" in shown
    assert "unloaded: " in shown
    unloaded = run("unload", "owner/toy", "--force", env=at)
    assert (unloaded.returncode, unloaded.stderr.strip()) == (0, "owner/toy is unloaded.")
    assert states() == {"broken": "unloaded", "owner/toy": "unloaded"}


def test_what_is_wrong_is_a_sentence(server: ServeProcess, tmp_path: Path) -> None:
    unknown = run("load", "gpt-4", "--url", f"{server.url}/v1")
    assert unknown.returncode == 1
    assert "'gpt-4' is not served here: use 'broken' or 'owner/toy'" in unknown.stderr
    nobody = run("models", "--url", "http://127.0.0.1:1")
    assert nobody.returncode == 1
    assert "no tbcluster server answers at http://127.0.0.1:1" in nobody.stderr
    assert "is no address" in run("models", "--url", "127.0.0.1").stderr
    nowhere = run("serve", "--models", str(tmp_path / "none"))
    assert nowhere.returncode == 1
    assert "there is no folder" in nowhere.stderr
