"""`tbcluster pull` as a user runs it, against a hub of our own."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.commands import run
from tests.doubles.hub import HubServer
from tests.doubles.speeds import note_speeds
from tests.doubles.trusted import TrustedHead
from tests.doubles.waiting import wait_until

MODEL = "owner/toy"
SPEED_KIND = "float32 128"
SIZES = LlamaSizes(num_hidden_layers=4, hidden_size=128, vocab_size=2000)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A hub with one model."""
    folder = tmp_path_factory.mktemp("hub")
    write_llama(folder / MODEL, SIZES, num_shards=2, with_tokenizer=True)
    with HubServer(folder) as server:
        yield server


class User:
    """Runs `tbcluster pull` with folders of its own."""

    def __init__(self, hub: HubServer, path: Path) -> None:
        self.home = path / "home"
        self.cache = path / "cache"
        self.env = {
            "TBCLUSTER_HOME": str(self.home),
            "HF_HOME": str(self.cache),
            "HF_ENDPOINT": hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }

    def pull(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("pull", *arguments, env=self.env)

    def told(self, *arguments: str) -> dict[str, Any]:
        done = self.pull(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts


@pytest.fixture
def user(hub: HubServer, tmp_path: Path) -> User:
    return User(hub, tmp_path)


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def test_on_one_machine_all_of_it_goes_into_the_cache_and_what_is_bad_anew(
    user: User, hub: HubServer
) -> None:
    done = user.pull(MODEL, "--verify")
    assert done.returncode == 0, done.stderr
    (snapshot,) = user.cache.glob("hub/models--owner--toy/snapshots/*")
    assert f"all of {MODEL} is in {snapshot}" in done.stderr.replace("\n", "")
    assert "have the hub's SHA-256" in done.stderr.replace("\n", " ")
    good, bad = weight_files(snapshot)
    spoil(bad.resolve())
    before = hub.sent_of(good.name), hub.sent_of(bad.name)
    done = user.pull(MODEL, "--verify")
    assert done.returncode == 0, done.stderr
    assert f"fetched anew: {bad.name}" in done.stderr.replace("\n", " ")
    assert bad.read_bytes() == (hub.folder / MODEL / bad.name).read_bytes()
    sent = hub.sent_of(good.name) - before[0], hub.sent_of(bad.name) - before[1]
    assert sent == (0, bad.stat().st_size)


def test_ctrl_c_ends_a_download_at_once_and_it_goes_on_later(user: User, hub: HubServer) -> None:
    size = (hub.folder / MODEL / "model-00001-of-00002.safetensors").stat().st_size
    before = hub.sent_bytes
    # All of it would take a minute.
    hub.mischief.bytes_per_s = size // 60
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "tbcluster", "pull", MODEL],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **user.env},
        )
        wait_until(lambda: hub.sent_bytes - before > size // 60, "some of it is there")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert hub.sent_bytes - before < size // 2
    finally:
        hub.mischief.bytes_per_s = 0
    assert process.returncode == 130
    assert "goes on from there" in said.replace("\n", " ")
    assert "Traceback" not in said


def test_what_is_not_all_here_is_not_called_wrong(user: User) -> None:
    """Between two commands the Hugging Face cache may lose files; the store has the headers."""
    code = f"from tbcluster.cluster.pulling import verify_here; verify_here({MODEL!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **user.env},
    )
    assert done.returncode == 1
    assert f"FetchError: not all of {MODEL} is on this machine" in done.stderr.replace(
        "tbcluster.errors.", ""
    )


def test_a_folder_is_where_it_is(hub: HubServer, tmp_path: Path) -> None:
    folder = str(hub.folder / MODEL)
    environment = {"TBCLUSTER_HOME": str(tmp_path)}
    done = CliRunner().invoke(app, ["pull", folder, "--verify", "--json"], env=environment)
    told = json.loads(done.stdout)
    assert (told["folder"], told["verified_bytes"]) == (folder, 0)


def test_the_bundled_model_is_there(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["pull", "--json"], env={"TBCLUSTER_HOME": str(tmp_path)})
    assert (done.exit_code, done.stdout) == (0, "")


def test_onto_the_nodes_of_a_rack_and_again_what_has_changed(user: User, hub: HubServer) -> None:
    head = TrustedHead(user.home)
    note_speeds(user.home, (SPEED_KIND,), [one.node_id for one in head.members.nodes()])
    before = hub.sent_bytes
    (node,) = user.told(MODEL, "--context", "256")["nodes"]
    size = sum(file.stat().st_size for file in weight_files(hub.folder / MODEL))
    assert (node["node"], node["is_done"]) == ("head", True)
    assert node["hub_bytes"] > 0.9 * size
    assert hub.sent_bytes - before < 1.05 * size + 100_000
    store = user.home / "models" / "owner--toy"
    spoiled = next(store.glob("*/model-00001*.safetensors"))
    status = spoil(spoiled)
    done = user.pull(MODEL, "--all", "--verify")
    assert done.returncode == 0, done.stderr
    found = re.search(r"([\d.]+) (kB|MB) from the hub, 0 B from nodes", done.stdout)
    assert found, done.stdout
    assert float(found[1]) * {"kB": 1e3, "MB": 1e6}[found[2]] < status.st_size
    original = next((hub.folder / MODEL).glob("model-00001*.safetensors"))
    assert spoiled.read_bytes() == original.read_bytes()


def spoil(file: Path) -> os.stat_result:
    """Change the last byte, so that nothing but reading finds it."""
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return status
