"""The list of nodes on disk, and those that may connect."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tbcluster.cluster.trust import Member, MemberFile, MemberRing, TrustFolder
from tbcluster.errors import JoinError, TrustError, UnknownNodeError
from tbcluster.hardware.followed import RELOAD_S
from tbcluster.transport.curve import new_keys


@pytest.fixture
def folder(tmp_path: Path) -> TrustFolder:
    folder = TrustFolder(tmp_path / "state")
    folder.init("rack", "head", 29640)
    return folder


@pytest.fixture
def members(folder: TrustFolder) -> MemberFile:
    return MemberFile(folder)


def join(members: MemberFile, name: str) -> Member:
    return members.admit(members.invite(60.0), new_keys().public, name)


def test_nodes_are_kept_in_order(folder: TrustFolder, members: MemberFile) -> None:
    join(members, "mini")
    join(members, "mini")
    assert [member.name for member in MemberFile(folder).nodes()] == ["head", "mini", "mini-2"]
    members.rename("mini-2", "studio")
    members.revoke("mini")
    assert [(one.name, one.is_revoked) for one in members.nodes()] == [
        ("head", False),
        ("mini", True),
        ("studio", False),
    ]
    with pytest.raises(UnknownNodeError):
        members.revoke("nobody")


def test_who_is_drained_is_kept(folder: TrustFolder, members: MemberFile) -> None:
    mini = join(members, "mini")
    members.drain("mini")
    assert [one.is_drained for one in MemberFile(folder).nodes()] == [False, True]
    assert members.drainable(mini.node_id).is_drained
    members.undrain(mini.node_id)
    assert members.nodes()[1] == mini
    with pytest.raises(UnknownNodeError):
        members.drain("nobody")


def test_secrets_are_kept_as_hashes(folder: TrustFolder, members: MemberFile) -> None:
    secret = members.invite(60.0)
    assert len(secret) >= 22
    assert members.invite(60.0) != secret
    assert secret not in (folder.path / "members.json").read_text()
    assert members.open_invitations() == 2


def test_invitations_are_used_up_expire_and_are_cancelled(folder: TrustFolder) -> None:
    now = 1000.0
    members = MemberFile(folder, clock=lambda: now)
    used = members.invite(60.0)
    key = new_keys().public
    member = members.admit(used, key, "mini")
    assert member.joined == "1970-01-01T00:16:40Z"
    assert members.open_invitations() == 0
    assert members.awaits_nodes()
    version = members.version()
    assert members.admit(used, key, "other") == member
    # The same answer, and nothing was written.
    assert members.version() == version
    late = members.invite(60.0)
    cancelled = members.invite(120.0)
    now += 60.0
    assert members.open_invitations() == 1
    members.cancel_invitations()
    assert not members.awaits_nodes()
    version = members.version()
    for secret in (used, late, cancelled, ""):
        with pytest.raises(JoinError):
            members.admit(secret, new_keys().public, "mini")
    assert members.version() == version


ADMIT = """
import sys
from pathlib import Path
from tbcluster.cluster.trust import MemberFile, TrustFolder
from tbcluster.errors import JoinError
from tbcluster.transport.curve import new_keys
members = MemberFile(TrustFolder(Path(sys.argv[1])))
keys = [new_keys().public for _ in sys.argv[2:]]
print("ready", flush=True)
sys.stdin.readline()
for secret, key in zip(sys.argv[2:], keys):
    try:
        print("admitted", members.admit(secret, key, "mini").name, flush=True)
    except JoinError:
        print("refused", flush=True)
"""


def test_of_two_processes_with_one_secret_one_is_admitted(
    folder: TrustFolder, members: MemberFile
) -> None:
    tokens = [members.invite(60.0) for _ in range(10)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ADMIT, str(folder.path), *tokens],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [len(lines) for lines in said] == [len(tokens)] * 2
    for one, other in zip(*said, strict=True):
        assert (one == "refused") != (other == "refused")
    # No name twice either.
    assert len({line for lines in said for line in lines}) == len(tokens) + 1
    assert len(members.nodes()) == 1 + len(tokens)
    assert members.open_invitations() == 0


def test_the_ring_follows_the_file(folder: TrustFolder, members: MemberFile) -> None:
    now = 0.0
    mini = join(members, "mini")
    ring = MemberRing(members, clock=lambda: now)
    assert ring.allows(folder.node().keys.public)
    assert ring.allows(mini.public_key)
    assert not ring.allows(new_keys().public)
    assert not ring.allows("")
    assert ring.find(mini.public_key) == mini
    studio = join(members, "studio")
    members.revoke("mini")
    now += RELOAD_S
    assert not ring.allows(mini.public_key)
    assert ring.allows(studio.public_key)
    found = ring.find(mini.public_key)
    assert found is not None
    assert found.is_revoked
    assert [member.name for member in ring.members()] == ["head", "mini", "studio"]


def test_a_file_that_breaks_leaves_the_nodes_from_before(
    folder: TrustFolder, members: MemberFile, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    ring = MemberRing(members, clock=lambda: now)
    (folder.path / "members.json").write_text("{")
    now += RELOAD_S
    assert ring.allows(folder.node().keys.public)
    assert "the nodes from before stay valid" in caplog.text
    with pytest.raises(TrustError):
        MemberRing(members)


def test_many_threads_may_ask_the_ring(members: MemberFile) -> None:
    ring = MemberRing(members, clock=iter(range(10**6)).__next__)
    admitted = [join(members, "mini") for _ in range(4)]
    wrong: list[str] = []

    def ask() -> None:
        for _ in range(50):
            wrong.extend(one.name for one in admitted if not ring.allows(one.public_key))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
