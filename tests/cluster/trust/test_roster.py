"""Who is admitted: pure."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.trust.identity import id_of
from tbcluster.cluster.trust.roster import (
    REPEAT_S,
    Member,
    Roster,
    admitted,
    drained,
    invited,
    renamed,
    revoked,
    without_open_invitations,
)
from tbcluster.errors import JoinError, TrustError, UnknownNodeError

NOW = 1000.0
VALID_S = 3600.0
JOINED = "2026-01-01T00:00:00Z"


def key(name: str) -> str:
    return name.ljust(40, "0")


def head() -> Roster:
    return Roster((Member(id_of(key("head")), "head", key("head"), JOINED, is_head=True),))


def with_node(name: str) -> Roster:
    return admit(invited(head(), "secret", NOW, VALID_S), "secret", name)[0]


def admit(
    roster: Roster, secret: str, name: str, now: float = NOW, wanted: str | None = None
) -> tuple[Roster, Member]:
    return admitted(roster, secret, key(name), wanted or name, now, JOINED)


def test_a_secret_admits_one_machine() -> None:
    roster, member = admit(invited(head(), "secret", NOW, VALID_S), "secret", "mini")
    assert member == Member(id_of(key("mini")), "mini", key("mini"), JOINED)
    assert [one.name for one in roster.members] == ["head", "mini"]
    with pytest.raises(JoinError, match="another machine already"):
        admit(roster, "secret", "studio")


def test_the_same_machine_gets_the_same_answer() -> None:
    roster = with_node("mini")
    again, member = admit(roster, "secret", "mini", NOW + 60, wanted="other")
    assert again is roster
    assert member.name == "mini"
    more = admit(invited(roster, "next", NOW, VALID_S), "next", "studio")[0]
    with pytest.raises(JoinError, match="another machine already"):
        admit(more, "secret", "studio")


@pytest.mark.parametrize("secret", ["", "Secret", "secret ", "other", "\ud800"])
def test_other_secrets_admit_nobody(secret: str) -> None:
    roster = invited(head(), "secret", NOW, VALID_S)
    with pytest.raises(JoinError, match="does not know this token"):
        admit(roster, secret, "mini")


def test_secrets_expire() -> None:
    roster = invited(head(), "secret", NOW, VALID_S)
    admit(roster, "secret", "mini", NOW + VALID_S - 1)
    with pytest.raises(JoinError, match="expired"):
        admit(roster, "secret", "mini", NOW + VALID_S)
    used = with_node("mini")
    with pytest.raises(JoinError, match="expired"):
        admit(used, "secret", "mini", NOW + VALID_S)


def test_expired_invitations_are_forgotten() -> None:
    roster = invited(head(), "old", NOW, 10.0)
    assert len(invited(roster, "new", NOW + 5, 10.0).invitations) == 2
    assert len(invited(roster, "new", NOW + 10, 10.0).invitations) == 1


def test_someone_is_awaited_until_the_answer_must_have_come() -> None:
    (open_one,) = invited(head(), "secret", NOW, VALID_S).invitations
    assert open_one.is_open(NOW)
    assert open_one.is_awaited(NOW + VALID_S - 1)
    assert not open_one.is_open(NOW + VALID_S)
    assert not open_one.is_awaited(NOW + VALID_S)
    (used,) = with_node("mini").invitations
    assert not used.is_open(NOW)
    assert used.is_awaited(NOW + REPEAT_S - 1)
    assert not used.is_awaited(NOW + REPEAT_S)


def test_names_that_are_taken_get_a_number() -> None:
    roster = invited(with_node("mini"), "next", NOW, VALID_S)
    assert admit(roster, "next", "other", wanted="mini")[1].name == "mini-2"
    with pytest.raises(TrustError, match="is no name"):
        admit(roster, "next", "other", wanted="a b")


def test_a_node_that_joins_again_stays_who_it_is() -> None:
    roster = invited(with_node("mini"), "next", NOW, VALID_S)
    again, member = admit(roster, "next", "mini", wanted="other")
    assert member.name == "mini"
    assert again.members == roster.members
    with pytest.raises(JoinError, match="another machine already"):
        admit(again, "next", "studio")


def test_a_revoked_key_is_never_admitted_again() -> None:
    roster = revoked(with_node("mini"), "mini")
    with pytest.raises(JoinError, match="--new-keys"):
        admit(roster, "secret", "mini")
    more = invited(roster, "next", NOW, VALID_S)
    with pytest.raises(JoinError, match="--new-keys"):
        admit(more, "next", "mini")
    # With other keys it is another node, and may have the name.
    again, member = admit(more, "next", "new", wanted="mini")
    assert member.name == "mini"
    assert [one.name for one in again.members] == ["head", id_of(key("mini")), "mini"]
    assert again.find(id_of(key("mini"))).is_revoked


def test_nodes_are_found_by_name_or_id() -> None:
    roster = with_node("mini")
    assert roster.find("mini") is roster.find(id_of(key("mini")))
    with pytest.raises(UnknownNodeError, match="there are head, mini"):
        roster.find("studio")


def test_nodes_are_renamed() -> None:
    roster = renamed(with_node("mini"), "mini", "studio")
    assert roster.find("studio").public_key == key("mini")
    assert renamed(roster, "studio", "studio") == roster
    with pytest.raises(TrustError, match="'head' already"):
        renamed(roster, "studio", "head")
    with pytest.raises(TrustError, match="is no name"):
        renamed(roster, "studio", "a b")
    with pytest.raises(UnknownNodeError):
        renamed(roster, "mini", "other")


def test_the_head_node_cannot_be_revoked() -> None:
    with pytest.raises(TrustError, match="head node"):
        revoked(head(), "head")


def test_any_node_is_drained_and_taken_back_but_for_revoked_ones() -> None:
    roster = with_node("mini")
    for name in ("head", "mini"):
        out = drained(roster, name, is_drained=True)
        assert [one.name for one in out.members if one.is_drained] == [name]
        assert drained(out, name, is_drained=True) == out
        assert drained(out, name, is_drained=False) == roster
    with pytest.raises(UnknownNodeError, match="there are head, mini"):
        drained(roster, "studio", is_drained=True)
    with pytest.raises(TrustError, match="was revoked"):
        drained(revoked(roster, "mini"), "mini", is_drained=True)


def test_unused_tokens_can_be_made_worthless() -> None:
    roster = invited(with_node("mini"), "next", NOW, VALID_S)
    left = without_open_invitations(roster, NOW)
    with pytest.raises(JoinError):
        admit(left, "next", "studio")
    # Who has joined still gets an answer.
    assert admit(left, "secret", "mini")[1].name == "mini"


def test_what_contradicts_itself_is_refused() -> None:
    member = head().members[0]
    with pytest.raises(ValueError, match="same name"):
        Roster((member, Member(id_of(key("x")), "head", key("x"), JOINED)))
    for members in ((), (member, msgspec.structs.replace(with_node("x").members[1], is_head=True))):
        with pytest.raises(ValueError, match="exactly one node is the head"):
            Roster(members)
    with pytest.raises(ValueError, match="is not the id"):
        Member("0" * 16, "a", key("a"), JOINED)


secrets = st.sampled_from(["a", "b", "c"])
machines = st.sampled_from(["m1", "m2", "m3"])
steps = st.one_of(
    st.tuples(st.just("invite"), secrets),
    st.tuples(st.just("admit"), secrets, machines),
    st.tuples(st.just("revoke"), machines),
    st.tuples(st.just("wait"), st.floats(1, VALID_S)),
)


@given(st.lists(steps, max_size=30))
def test_never_more_nodes_than_invitations(taken: list[tuple[str, ...]]) -> None:
    roster, now, num_invited = head(), NOW, 0
    for step in taken:
        before = roster
        try:
            match step:
                case ("invite", secret) if all(
                    not one.is_awaited(now) or one.sha256 != _digest(secret)
                    for one in roster.invitations
                ):
                    roster, num_invited = invited(roster, secret, now, VALID_S), num_invited + 1
                case ("admit", secret, machine):
                    roster, member = admit(roster, secret, machine, now)
                    assert not member.is_revoked
                case ("revoke", machine):
                    roster = revoked(roster, id_of(key(machine)))
                case ("wait", seconds):
                    now += float(seconds)
        except (JoinError, UnknownNodeError):
            assert roster is before
        was_revoked = {one.node_id for one in before.members if one.is_revoked}
        assert was_revoked <= {one.node_id for one in roster.members if one.is_revoked}
        assert len(roster.members) <= 1 + num_invited


def _digest(secret: str) -> str:
    return invited(head(), secret, 0.0, 1.0).invitations[0].sha256
