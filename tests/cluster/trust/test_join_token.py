"""Tokens as text."""

import ipaddress
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tbcluster.cluster.trust.identity import KEY_PATTERN, MAX_CONTROL_PORT, id_of
from tbcluster.cluster.trust.join_token import MAX_ADDRESSES, MAX_CHARACTERS, PREFIX, JoinToken
from tbcluster.errors import TrustError

ALPHABET = string.ascii_letters + string.digits + "-_"

addresses = st.ip_addresses().map(str).filter(lambda ip: "%" not in ip)
tokens = st.builds(
    JoinToken,
    server_key=st.from_regex(KEY_PATTERN),
    secret=st.text(ALPHABET, min_size=16, max_size=64),
    addresses=st.lists(addresses, max_size=MAX_ADDRESSES).map(tuple),
    port=st.integers(1, MAX_CONTROL_PORT),
    expires=st.integers(0, (1 << 40) - 1),
)
TOKEN = JoinToken(
    server_key="MHERY+-*Rr8M1CD.:iAdG.9+WIbE2?O>jz9nd(zW",
    secret="nwDBtLkMyA123456789abc",  # noqa: S106
    addresses=("192.168.1.10", "169.254.3.4", "fe80::1c2d:3eff:fe4f:5a6b", "fd00::1"),
    port=29640,
    expires=1795440345,
)
TEXT = TOKEN.encode()


@given(tokens)
def test_a_token_survives_being_typed(token: JoinToken) -> None:
    text = token.encode()
    assert JoinToken.decode(text) == token
    assert len(text) <= MAX_CHARACTERS
    assert set(text) <= set(ALPHABET)
    assert JoinToken.decode(f"  {text[:30]}\n{text[30:]}\r\n") == token


def test_it_is_short_and_hides_its_secret() -> None:
    assert len(TEXT) < 200
    assert TOKEN.secret not in repr(TOKEN)
    assert TOKEN.cluster_id == id_of(TOKEN.server_key)


@pytest.mark.parametrize("place", range(len(PREFIX), len(TEXT)))
def test_a_wrong_character_is_noticed(place: int) -> None:
    for character in ALPHABET + "+/=. ":
        if character != TEXT[place]:
            with pytest.raises(TrustError):
                JoinToken.decode(TEXT[:place] + character + TEXT[place + 1 :])


@given(tokens, st.data())
def test_a_missing_or_doubled_part_is_noticed(token: JoinToken, data: st.DataObject) -> None:
    text = token.encode()
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    for damaged in (text[:start] + text[end:], text[:end] + text[start:], text[:end][:-1]):
        if damaged != text:
            with pytest.raises(TrustError):
                JoinToken.decode(damaged)


@given(st.text())
@example("")
@example(PREFIX)
@example(PREFIX + "A" * 5)
@example(PREFIX + "A" * (MAX_CHARACTERS + 1))
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(TrustError):
        JoinToken.decode(text)
    with pytest.raises(TrustError):
        JoinToken.decode(PREFIX + text)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(TrustError, match="copy it whole"):
        JoinToken.decode(TEXT[:-3])
    with pytest.raises(TrustError, match="begins with tbj-"):
        JoinToken.decode("tbc-abc")


def test_another_versions_token_is_named_as_such() -> None:
    # A sealed text whose content is no token: port 0, which JoinToken itself does not refuse.
    with pytest.raises(TrustError, match="another version"):
        JoinToken.decode(JoinToken(TOKEN.server_key, TOKEN.secret, (), 0, 1).encode())


def test_no_more_addresses_than_fit() -> None:
    many = tuple(str(ipaddress.ip_address(f"10.0.0.{i}")) for i in range(40))
    token = JoinToken(TOKEN.server_key, TOKEN.secret, many, 1, 1)
    assert JoinToken.decode(token.encode()).addresses == many[:MAX_ADDRESSES]
