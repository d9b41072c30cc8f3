"""Names of nodes and clusters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.trust.names import (
    MAX_LENGTH,
    checked_name,
    free_name,
    host_name,
    is_name,
    name_from,
)
from tbcluster.errors import TrustError

names = st.from_regex(r"\A[A-Za-z0-9._-]{1,64}\Z")


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a\n", "é", "a/b", "a:1", "\udc80"])
def test_names_are_plain(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(TrustError, match="is no name"):
        checked_name(name)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Alices-Mac-Studio.local", "Alices-Mac-Studio"),
        ("mini", "mini"),
        ("Büro 1", "B-ro-1"),
        ("", "node"),
        ("日本", "node"),
        ("x" * 70, "x" * 64),
    ],
)
def test_a_hosts_name_becomes_a_nodes(host: str, name: str) -> None:
    assert name_from(host) == name


def test_this_host_has_a_name() -> None:
    assert is_name(host_name())


@given(st.text())
def test_whatever_the_host_is_called(host: str) -> None:
    assert is_name(name_from(host))


@given(names, st.integers(0, 4))
def test_a_name_that_is_taken_gets_a_number(wanted: str, num_taken: int) -> None:
    taken: list[str] = []
    for _ in range(num_taken):
        taken.append(free_name(wanted, taken))
    assert len(set(taken)) == num_taken
    assert taken[:1] == [wanted][:num_taken]
    if len(wanted) < MAX_LENGTH - 1:
        assert taken[1:2] == [f"{wanted}-2"][: num_taken - 1 if num_taken else 0]
    assert all(is_name(name) for name in taken)
