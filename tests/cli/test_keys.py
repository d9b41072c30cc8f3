"""`tbcluster keys` and a server that asks for them."""

import json
import re
import subprocess
from pathlib import Path

import httpx

from tests.doubles.commands import run, run_here
from tests.doubles.server import ServeProcess
from tests.doubles.waiting import wait_until


def keys(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here("keys", *arguments, env={"XDG_CONFIG_HOME": str(folder), "HOME": str(folder)})


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    assert "There are no keys" in keys(tmp_path, "list").stderr
    made = keys(tmp_path, "add", "alice", "--requests-per-minute", "60")
    secret = made.stdout.strip()
    # The key alone goes to standard output: `KEY=$(tbcluster keys add alice)` works.
    assert re.fullmatch(r"tbc-[\w-]{43}", secret)
    assert "cannot be shown again" in made.stderr
    keys(tmp_path, "add", "bob", "--tokens-per-minute", "5000")
    shown = keys(tmp_path, "list").stdout
    assert re.search(r"alice +\d{4}-\d\d-\d\d +60 +-", shown)
    assert re.search(r"bob +\d{4}-\d\d-\d\d +- +5,000", shown)
    listed = json.loads(keys(tmp_path, "list", "--json").stdout)
    assert [key["name"] for key in listed] == ["alice", "bob"]
    assert "sha256" not in listed[0]
    assert secret not in shown
    assert "already" in keys(tmp_path, "add", "alice").stderr
    assert "is revoked" in keys(tmp_path, "revoke", "alice").stderr
    listed = json.loads(keys(tmp_path, "list", "--json").stdout)
    assert [key["name"] for key in listed] == ["bob"]


def test_limits_are_at_least_one(tmp_path: Path) -> None:
    assert keys(tmp_path, "add", "alice", "--requests-per-minute", "0").returncode == 2


def test_a_server_that_asks_for_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = run("keys", "add", "alice", "--keys", str(file)).stdout.strip()
    arguments = ("--keys", str(file), "--require-keys", "--access-log", "--stages", "1")
    with ServeProcess(*arguments) as server:
        assert "Authorization: Bearer YOUR_KEY" in server.output
        url = f"{server.url}/v1/models"
        assert httpx.get(url).status_code == 401
        headers = {"Authorization": f"Bearer {secret}", "x-request-id": "mine"}
        assert httpx.get(url, headers=headers).status_code == 200
        wait_until(lambda: "key=alice id=mine" in server.output, "the request is in the log")
        file.chmod(0o644)
        wait_until(
            lambda: (
                httpx.get(url, headers=headers).status_code == 200
                and "the keys from before stay valid" in server.output
            ),
            "it goes on with the keys it has",
        )
        file.chmod(0o600)
        run_here("keys", "revoke", "alice", "--keys", str(file))
        wait_until(lambda: httpx.get(url, headers=headers).status_code == 401, "it is revoked")
    assert secret not in server.output


def test_a_server_open_to_others_says_so(tmp_path: Path) -> None:
    with ServeProcess("--host", "0.0.0.0", "--insecure", "--stages", "1") as server:  # noqa: S104
        assert "anyone who can connect can use it" in server.output
        assert "Other machines reach it at http://" in server.output
        # Whatever name others know this machine by is fine.
        assert (
            httpx.get(f"{server.url}/v1/models", headers={"Host": "rack.example"}).status_code
            == 200
        )


def test_a_key_file_that_others_can_read_is_refused_before_anything_is_loaded(
    tmp_path: Path,
) -> None:
    file = tmp_path / "keys.json"
    run_here("keys", "add", "alice", "--keys", str(file))
    file.chmod(0o644)
    done = run_here("serve", "--port", "0", "--require-keys", "--keys", str(file))
    assert done.returncode == 1
    assert f"chmod 600 '{file}'" in done.stderr
    assert "Traceback" not in done.stderr
