"""A machine joins, over real sockets."""

import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster.trust import Membership, TrustFolder, join_cluster
from tbcluster.errors import JoinError, TrustError
from tests.doubles.trusted import TrustedHead
from tests.doubles.waiting import wait_until


@pytest.fixture
def head(tmp_path: Path) -> TrustedHead:
    return TrustedHead(tmp_path / "head")


@pytest.fixture
def folder(tmp_path: Path) -> TrustFolder:
    return TrustFolder(tmp_path / "node")


def ignore(note: str) -> None:
    del note


def test_a_machine_joins(head: TrustedHead, folder: TrustFolder) -> None:
    # Addresses that lead nowhere, or to somebody else, cost no more than a moment.
    token = replace(head.invite(), addresses=("fe80::1", "::1", "127.0.0.1"))
    with head.desk():
        joined = join_cluster(token, folder, "mini", deadline_s=30.0, on_note=ignore)
    port = head.head.control_port
    assert joined.addresses[0] in (f"[::1]:{port}", f"127.0.0.1:{port}")
    assert len(joined.addresses) == 2
    assert joined == Membership(
        head.head.cluster_id, "rack", "mini", head.head.keys.public, joined.addresses, port
    )
    assert folder.membership() == joined
    (_, member) = head.members.nodes()
    assert member.node_id == folder.node().node_id


def test_it_waits_for_the_head_node(head: TrustedHead, folder: TrustFolder) -> None:
    token = head.invite()
    notes: list[str] = []
    joined: list[Membership] = []

    def join() -> None:
        joined.append(join_cluster(token, folder, "mini", deadline_s=60.0, on_note=notes.append))

    thread = threading.Thread(target=join)
    thread.start()
    wait_until(lambda: len(notes) == 1, "it says what it waits for")
    assert f"127.0.0.1:{head.join_port}" in notes[0]
    with head.desk():
        thread.join(60)
    assert joined == [folder.membership()]
    assert len(notes) == 1


def test_it_gives_up(head: TrustedHead, folder: TrustFolder) -> None:
    with pytest.raises(JoinError, match="did not answer within 0 s"):
        join_cluster(head.invite(), folder, "mini", deadline_s=0.0, on_note=ignore)
    with pytest.raises(JoinError, match="expired 1 minutes ago"):
        join_cluster(head.invite(valid_s=-30.0), folder, "mini", deadline_s=0.0, on_note=ignore)
    assert folder.membership() is None


def test_a_refusal_is_final_and_keeps_what_was_known(
    head: TrustedHead, folder: TrustFolder, tmp_path: Path
) -> None:
    token = head.invite()
    with head.desk():
        join_cluster(token, folder, "mini", deadline_s=30.0, on_note=ignore)
        late = TrustFolder(tmp_path / "late")
        with pytest.raises(JoinError, match="another machine already"):
            join_cluster(token, late, "mini", deadline_s=30.0, on_note=ignore)
        assert late.membership() is None
        head.members.revoke("mini")
        known = folder.membership()
        with pytest.raises(JoinError, match="--new-keys"):
            join_cluster(head.invite(), folder, "mini", deadline_s=30.0, on_note=ignore)
        assert folder.membership() == known
        folder.renew_node()
        again = join_cluster(head.invite(), folder, "mini", deadline_s=30.0, on_note=ignore)
    assert again.node_name == "mini"
    assert len(head.names()) == 3


def test_an_interrupted_join_can_be_repeated(head: TrustedHead, folder: TrustFolder) -> None:
    token = head.invite()
    # It was admitted, and ended before it could write that down.
    head.members.admit(token.secret, folder.node().keys.public, "mini")
    with head.desk():
        joined = join_cluster(token, folder, "other", deadline_s=30.0, on_note=ignore)
    assert joined.node_name == "mini"
    assert head.names() == ["head", "mini"]


def test_an_impostor_is_not_believed(
    head: TrustedHead, folder: TrustFolder, tmp_path: Path
) -> None:
    """Another cluster's head node answers at the address: it has not the token's key."""
    other = TrustedHead(tmp_path / "other")
    other.invite()
    token = replace(head.invite(), port=other.head.control_port)
    with other.desk(), pytest.raises(JoinError, match="did not answer"):
        join_cluster(token, folder, "mini", deadline_s=0.0, on_note=ignore)
    assert other.names() == ["head"]
    assert folder.membership() is None


def test_a_head_node_joins_no_other(head: TrustedHead, tmp_path: Path) -> None:
    other = TrustedHead(tmp_path / "other")
    token = other.invite()
    with pytest.raises(TrustError, match="is the head node"):
        join_cluster(token, head.folder, "mini", deadline_s=0.0, on_note=ignore)
    with pytest.raises(TrustError, match="is no name"):
        join_cluster(token, TrustFolder(tmp_path / "x"), "a b", deadline_s=0.0, on_note=ignore)


def test_several_join_at_once(head: TrustedHead, tmp_path: Path) -> None:
    tokens = [head.invite() for _ in range(4)]
    folders = [TrustFolder(tmp_path / f"node{i}") for i in range(4)]
    with ExitStack() as stack:
        stack.enter_context(head.desk())
        threads = [
            threading.Thread(
                target=join_cluster,
                args=(token, folder, "mini"),
                kwargs={"deadline_s": 60.0, "on_note": ignore},
            )
            for token, folder in zip(tokens, folders, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    names = {known.node_name for folder in folders if (known := folder.membership())}
    assert names == {"mini", "mini-2", "mini-3", "mini-4"}
