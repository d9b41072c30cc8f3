"""Strict JSON: what json.loads takes, less what is no JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.server.bodies import (
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_NAMES,
    MAX_VALUES,
    check_shape,
    parse,
)
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
    for depth in (MAX_DEPTH + 1, 500, MAX_CONTAINERS):
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


def num_values(item: Any) -> int:
    if not isinstance(item, (dict, list)):
        return 0
    inner = list(item.values() if isinstance(item, dict) else item)
    return len(inner) + sum(map(num_values, inner))


@given(VALUES, st.integers(0, 5), st.integers(0, 3), st.integers(0, 9))
def test_depth_names_and_values_are_counted(
    value: object, depth: int, names: int, values: int
) -> None:
    if depth_of(value) > depth or widest(value) > names or num_values(value) > values:
        with pytest.raises(Refusal):
            check_shape(value, depth, names, values)
    else:
        check_shape(value, depth, names, values)


@pytest.mark.parametrize("item", [b"[]", b"{}", b'{"role":"user","content":"\\"["}'])
def test_lists_and_objects_are_counted_before_they_are_parsed(item: bytes) -> None:
    def listed(number: int) -> bytes:
        return b"[" + b",".join([item] * number) + b"]"

    assert len(parse(listed(MAX_CONTAINERS - 1))) == MAX_CONTAINERS - 1
    for number in (MAX_CONTAINERS, 1_000_000):
        with pytest.raises(Refusal, match="lists and objects, at most 65,536"):
            parse(listed(number))


@pytest.mark.parametrize("text", ["[{" * MAX_CONTAINERS, '\\"[' * MAX_CONTAINERS])
def test_brackets_in_texts_do_not_count(text: str) -> None:
    assert parse(json.dumps({"content": text}).encode()) == {"content": text}


@pytest.mark.parametrize("body", [b'"' + b'\\"' * (1 << 22), b"[" * MAX_CONTAINERS * 2 + b'"\\'])
def test_a_text_without_an_end_is_walked_through_once(body: bytes) -> None:
    with pytest.raises(Refusal):
        parse(b"[" * MAX_CONTAINERS + body)


def test_values_of_a_body_are_bounded() -> None:
    assert len(parse(b"[" + b"1," * (MAX_VALUES - 1) + b"1]")) == MAX_VALUES
    with pytest.raises(Refusal, match="2,097,153 values, at most 2,097,152"):
        parse(b"[" + b"1," * MAX_VALUES + b"1]")


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
