"""Who a node is, on its disk."""

import os
import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster.trust import (
    CONTROL_PORT,
    MemberFile,
    Membership,
    NodeIdentity,
    TrustFolder,
    id_of,
)
from tbcluster.errors import TrustError
from tbcluster.transport.curve import new_keys


@pytest.fixture
def folder(tmp_path: Path) -> TrustFolder:
    return TrustFolder(tmp_path / "state")


def membership(node_name: str = "mini") -> Membership:
    key = new_keys().public
    return Membership(id_of(key), "rack", node_name, key, ("192.0.2.1:29640",), CONTROL_PORT)


def test_a_node_stays_who_it_is(folder: TrustFolder) -> None:
    first = folder.node()
    assert TrustFolder(folder.path).node() == first
    assert first.node_id == id_of(first.keys.public)
    assert re.fullmatch(r"[0-9a-f]{16}", first.node_id)
    assert first.keys.secret not in repr(first)


def test_all_who_ask_first_get_the_same_identity(folder: TrustFolder) -> None:
    found: list[NodeIdentity] = []
    threads = [threading.Thread(target=lambda: found.append(folder.node())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_secrets_are_their_owners_alone(folder: TrustFolder) -> None:
    old = os.umask(0)
    try:
        folder.init("rack", "head", CONTROL_PORT)
        joined = TrustFolder(folder.path.parent / "other")
        joined.node()
        joined.join(membership())
    finally:
        os.umask(old)
    for path in (folder.path, joined.path):
        assert path.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o600}


def test_the_head_node_is_a_member_over_loopback(folder: TrustFolder) -> None:
    assert folder.head() is None
    assert folder.membership() is None
    head = folder.init("rack", "studio", 31000)
    assert TrustFolder(folder.path).head() == head
    assert head.cluster_id == id_of(head.keys.public)
    assert folder.membership() == Membership(
        head.cluster_id,
        "rack",
        "studio",
        head.keys.public,
        ("127.0.0.1:31000", "[::1]:31000"),
        31000,
    )
    (member,) = MemberFile(folder).nodes()
    assert member.is_head
    assert member.public_key == folder.node().keys.public
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", member.joined)
    MemberFile(folder).rename("studio", "desk")
    known = folder.membership()
    assert known is not None
    assert known.node_name == "desk"
    folder.remember(("192.0.2.9:1",))
    folder.rename("other")
    assert folder.membership() == known


def test_one_cluster_for_each_folder(folder: TrustFolder) -> None:
    first = folder.init("rack", "studio", CONTROL_PORT)
    for name in ("rack", "other"):
        with pytest.raises(TrustError, match=f"'rack' \\({first.cluster_id}\\)"):
            folder.init(name, "studio", CONTROL_PORT)
    with pytest.raises(TrustError, match="head node of cluster 'rack'"):
        folder.join(membership())
    with pytest.raises(TrustError, match="head node of cluster 'rack'"):
        folder.renew_node()
    assert folder.head() == first
    joined = TrustFolder(folder.path.parent / "other")
    joined.join(membership())
    with pytest.raises(TrustError, match="node 'mini' of cluster 'rack'"):
        joined.init("mine", "studio", CONTROL_PORT)
    assert joined.head() is None


@pytest.mark.parametrize("names", [("a b", "x"), ("x", ""), ("x", "a/b")])
def test_names_are_plain(folder: TrustFolder, names: tuple[str, str]) -> None:
    with pytest.raises(TrustError, match="is no name"):
        folder.init(*names, CONTROL_PORT)
    assert folder.head() is None


def test_what_a_failed_init_left_is_no_cluster(folder: TrustFolder) -> None:
    folder.init("old", "studio", CONTROL_PORT)
    MemberFile(folder).invite(60.0)
    (folder.path / "cluster.json").unlink()
    assert folder.membership() is None
    folder.init("new", "mini", CONTROL_PORT)
    assert [member.name for member in MemberFile(folder).nodes()] == ["mini"]
    assert MemberFile(folder).open_invitations() == 0


def test_a_joined_node_knows_its_cluster(folder: TrustFolder) -> None:
    known = membership()
    folder.join(known)
    assert TrustFolder(folder.path).membership() == known
    addresses = tuple(f"192.0.2.{i}:29640" for i in range(40))
    folder.remember(addresses)
    remembered = folder.membership()
    assert remembered is not None
    assert remembered.addresses == addresses[:16]
    assert remembered.coordinator_key == known.coordinator_key
    version = (folder.path / "membership.json").stat().st_ino
    folder.remember(addresses)
    assert (folder.path / "membership.json").stat().st_ino == version
    other = membership("studio")
    folder.join(other)
    assert folder.membership() == other


def test_a_node_keeps_the_name_that_it_is_given(folder: TrustFolder) -> None:
    known = membership()
    folder.join(known)
    folder.rename("other")
    assert TrustFolder(folder.path).membership() == replace(known, node_name="other")
    version = (folder.path / "membership.json").stat().st_ino
    folder.rename("other")
    assert (folder.path / "membership.json").stat().st_ino == version
    with pytest.raises(TrustError, match="is no name"):
        folder.rename("no name")


def test_only_members_remember(folder: TrustFolder) -> None:
    folder.remember(("192.0.2.1:29640",))
    folder.rename("mini")
    assert folder.membership() is None


def test_a_node_can_have_other_keys(folder: TrustFolder) -> None:
    first = folder.node()
    second = folder.renew_node()
    assert second.node_id != first.node_id
    assert folder.node() == second


@pytest.mark.parametrize("name", ["node.json", "cluster.json", "members.json"])
def test_damaged_files_are_named(folder: TrustFolder, name: str) -> None:
    folder.init("rack", "studio", CONTROL_PORT)
    path = folder.path / name
    good = path.read_text()

    def read() -> None:
        folder.node()
        folder.membership()

    for damaged in ("", "{}", "[]", good[:-20], good.replace('"public_key"', '"publik"')):
        path.write_text(damaged)
        with pytest.raises(TrustError, match=re.escape(str(path))):
            read()
    path.write_text(good)
    path.chmod(0o640)
    with pytest.raises(TrustError, match="chmod 600"):
        read()
    path.chmod(0o600)
    read()


def test_a_list_of_nodes_that_is_gone_is_missed(folder: TrustFolder) -> None:
    folder.init("rack", "studio", CONTROL_PORT)
    (folder.path / "members.json").unlink()
    with pytest.raises(TrustError, match="restore it"):
        folder.membership()
    with pytest.raises(TrustError, match="not the head node"):
        MemberFile(folder).nodes()


def test_each_secret_key_is_in_one_file(folder: TrustFolder) -> None:
    head = folder.init("rack", "studio", CONTROL_PORT)
    secrets = (folder.node().keys.secret, head.keys.secret)
    files = [path for path in folder.path.iterdir() if path.suffix == ".json"]
    for secret, holder in zip(secrets, ("node.json", "cluster.json"), strict=True):
        assert [path.name for path in files if secret in path.read_text()] == [holder]
