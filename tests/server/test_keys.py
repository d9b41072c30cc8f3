"""The file of API keys and the ring over it."""

import json
import threading
from pathlib import Path

import pytest

from tbcluster.errors import KeyFileError
from tbcluster.hardware.followed import RELOAD_S
from tbcluster.server.keys import KeyFile, KeyRing, digest


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "settings" / "keys.json")


def test_a_key_is_kept_as_a_hash_for_its_owner_alone(file: KeyFile) -> None:
    secret = file.add("alice", requests_per_minute=5)
    assert secret.startswith("tbc-")
    assert len(secret) > 40
    assert file.add("bob") != secret
    content = file.path.read_text()
    assert secret not in content
    assert digest(secret) in content
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [(key.name, key.requests_per_minute) for key in file.load()] == [
        ("alice", 5),
        ("bob", None),
    ]
    assert not list(file.path.parent.glob("keys.json?*[!k]"))


def test_no_file_is_no_keys(file: KeyFile) -> None:
    assert file.load() == ()
    assert KeyRing(file).find("tbc-x") is None


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a\nb", "é"])
def test_names_are_plain(file: KeyFile, name: str) -> None:
    with pytest.raises(KeyFileError, match="no name for a key"):
        file.add(name)


def test_names_are_taken_once_and_can_be_revoked(file: KeyFile) -> None:
    file.add("alice")
    with pytest.raises(KeyFileError, match="revoke it first"):
        file.add("alice")
    file.revoke("alice")
    assert file.load() == ()
    with pytest.raises(KeyFileError, match="no key 'alice'"):
        file.revoke("alice")


def test_several_may_add_at_once(file: KeyFile) -> None:
    threads = [threading.Thread(target=file.add, args=(f"k{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in file.load()} == {f"k{i}" for i in range(8)}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_use_is_refused(file: KeyFile, mode: int) -> None:
    file.add("alice")
    file.path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        file.load()
    with pytest.raises(KeyFileError, match="chmod 600"):
        file.add("bob")


GOOD = {"name": "a", "sha256": "0" * 64, "created": "2026-01-01"}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"keys": 3}',
        '{"keys": [3]}',
        '{"keys": [{"name": "a"}]}',
        json.dumps({"keys": [{**GOOD, "sha256": "xyz"}]}),
        json.dumps({"keys": [{**GOOD, "name": "a b"}]}),
        json.dumps({"keys": [{**GOOD, "extra": 1}]}),
        json.dumps({"keys": [{**GOOD, "requests_per_minute": 0}]}),
        json.dumps({"keys": [{**GOOD, "tokens_per_minute": "many"}]}),
    ],
)
def test_a_corrupt_file_is_named(file: KeyFile, content: str) -> None:
    file.path.parent.mkdir()
    file.path.write_text(content)
    file.path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"keys\.json"):
        file.load()
    with pytest.raises(KeyFileError):
        KeyRing(file)


def test_the_ring_follows_the_file(file: KeyFile) -> None:
    now = 0.0
    first = file.add("first")
    ring = KeyRing(file, clock=lambda: now)
    second = file.add("second")
    found = ring.find(first)
    assert found is not None
    assert found.name == "first"
    # It looks again at most so often.
    assert ring.find(second) is None
    now += RELOAD_S
    assert ring.find(second) is not None
    file.revoke("first")
    now += RELOAD_S
    assert ring.find(first) is None
    assert ring.find("") is None
    assert ring.find("\udcff") is None
    file.path.unlink()
    now += RELOAD_S
    assert ring.find(second) is None


def test_a_file_that_breaks_leaves_the_keys_from_before(
    file: KeyFile, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    secret = file.add("alice")
    ring = KeyRing(file, clock=lambda: now)
    good = file.path.read_bytes()
    file.path.write_bytes(b"{")
    for _ in range(3):
        now += RELOAD_S
        assert ring.find(secret) is not None
    assert caplog.text.count("stay valid") == 1
    file.path.write_bytes(good.replace(b"alice", b"bobby"))
    now += RELOAD_S
    found = ring.find(secret)
    assert found is not None
    assert found.name == "bobby"
