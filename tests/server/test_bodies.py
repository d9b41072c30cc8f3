"""Strict JSON: what json.loads takes, less what is no JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.server.bodies import MAX_DEPTH, MAX_NAMES, check_shape, parse
from tbcluster.server.problems import Refusal

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_json_is_read_as_it_was_meant(value: object, is_ascii: bool) -> None:
    assert parse(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} x",
        b"NaN",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"-Infinity",
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'"\\ud800"',
        b'{"\\ud800": 1}',
        b'["\\ude00\\ud800"]',
        b'"\\ud800\\u0041"',
        b'"\xff"',
        b'{"\xc3": 1}',
        b'"\xed\xa0\x80"',
        b"\xff\xfe{\x00}\x00",
        b'"\x00"',
        b"01",
        b"[1,]",
        b"'a'",
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal, match="not valid JSON") as refused:
        parse(body)
    assert refused.value.status_code == 400


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_is_bounded(opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"

    def nested(depth: int) -> bytes:
        return opening * depth + b"1" + closing * depth

    assert parse(nested(MAX_DEPTH)) is not None
    for depth in (MAX_DEPTH + 1, 500, 1_000_000):
        with pytest.raises(Refusal, match="nests more than 64"):
            parse(nested(depth))


def depth_of(item: Any) -> int:
    if not isinstance(item, (dict, list)):
        return 0
    inner = item.values() if isinstance(item, dict) else item
    return 1 + max((depth_of(child) for child in inner), default=0)


def widest(item: Any) -> int:
    if not isinstance(item, (dict, list)):
        return 0
    inner = list(item.values() if isinstance(item, dict) else item)
    own = len(item) if isinstance(item, dict) else 0
    return max([own, *(widest(child) for child in inner)])


@given(VALUES, st.integers(0, 5), st.integers(0, 3))
def test_depth_and_names_are_counted(value: object, depth: int, names: int) -> None:
    if depth_of(value) > depth or widest(value) > names:
        with pytest.raises(Refusal):
            check_shape(value, depth, names)
    else:
        check_shape(value, depth, names)


def test_an_object_of_too_many_names_is_refused_at_once() -> None:
    def wide(num_names: int) -> bytes:
        return json.dumps([{"inner": {str(i): i for i in range(num_names)}}]).encode()

    assert len(parse(wide(MAX_NAMES))[0]["inner"]) == MAX_NAMES
    with pytest.raises(Refusal, match="4,097 names, at most 4,096"):
        parse(wide(MAX_NAMES + 1))


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(body: bytes) -> None:
    try:
        value = parse(body)
    except Refusal:
        return
    assert json.loads(body) == value
