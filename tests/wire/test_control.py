"""What workers and their parent say: whole lines survive, anything else is a WireError."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import StageRange
from tbcluster.errors import WireError
from tbcluster.wire.control import (
    STOP_LINE,
    Beat,
    Bound,
    CurveKeys,
    Failed,
    Loading,
    Ready,
    Reference,
    ReferenceSpec,
    Report,
    Route,
    Routed,
    Routes,
    StageSpec,
    decode_order,
    decode_report,
    decode_spec,
    encode_line,
)

counts = st.integers(0, 2**63 - 1)
tokens = st.lists(counts, max_size=5).map(tuple)
floats = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5).map(tuple)
reports = (
    st.builds(Loading, counts, counts)
    | st.builds(Bound, counts)
    | st.builds(Routed, counts)
    | st.builds(Ready, counts, st.text(), st.none() | st.text())
    | st.builds(Beat, counts, st.floats(0, 1e9))
    | st.builds(Failed, st.text(), st.text())
    | st.builds(Reference, tokens, floats, floats)
)
stage_specs = st.builds(
    StageSpec,
    index=counts,
    num_stages=counts,
    model=st.text(),
    layers=st.builds(StageRange, counts, counts),
    epoch=counts,
    inbound=st.text(),
    run_dir=st.text(),
    kv_bits=st.none() | counts,
    saved_folder=st.none() | st.text(),
    keys=st.none() | st.builds(CurveKeys, st.text(), st.text()),
    senders=st.lists(st.text(), max_size=3).map(tuple),
    shard=st.text(),
    step_limit_s=st.floats(0, 1e9),
)
some_routes = st.none() | st.builds(Route, st.text(), st.none() | st.text())
routes = st.builds(Routes, counts, some_routes, some_routes)
reference_specs = st.builds(ReferenceSpec, st.text(), tokens, counts, st.none() | counts)


def is_one_line(line: bytes) -> bool:
    return line.endswith(b"\n") and line.count(b"\n") == 1


@given(reports)
def test_reports_survive_as_one_line(report: Report) -> None:
    line = encode_line(report)
    assert is_one_line(line)
    assert decode_report(line) == report


@given(routes)
def test_routes_survive_as_one_line(told: Routes) -> None:
    assert is_one_line(encode_line(told))
    assert decode_spec(encode_line(told), Routes) == told


@given(routes | stage_specs)
def test_orders_are_told_from_each_other(order: Routes | StageSpec) -> None:
    assert decode_order(encode_line(order)) == order


def test_no_text_of_keys_shows_the_secret_one() -> None:
    keys = CurveKeys("open", "hidden")
    spec = StageSpec(0, 1, "", StageRange(0, 1), 1, "tcp://*:*", "", keys=keys)
    for text in (repr(keys), str(keys), repr(spec), f"{spec}"):
        assert "open" in text
        assert "hidden" not in text


@given(stage_specs, reference_specs)
def test_specs_survive_as_one_line(stage: StageSpec, reference: ReferenceSpec) -> None:
    assert is_one_line(encode_line(stage))
    assert is_one_line(encode_line(reference))
    assert decode_spec(encode_line(stage), StageSpec) == stage
    assert decode_spec(encode_line(reference), ReferenceSpec) == reference


def test_no_message_looks_like_the_stop_line() -> None:
    with pytest.raises(WireError):
        decode_report(STOP_LINE)
    with pytest.raises(WireError):
        decode_spec(STOP_LINE, StageSpec)
    with pytest.raises(WireError):
        decode_order(STOP_LINE)


NESTED = b"[" * 200_000
READY = encode_line(Ready(1, "cpu"))
GARBAGE = {
    "nothing": b"",
    "an empty line": b"\n",
    "text": b"Fetching 5 files: 100%\n",
    "not UTF-8": b'{"type":"failed","kind":"\xff\xfe","message":"m"}\n',
    "cut short": READY[:-3],
    "two on a line": READY[:-1] + READY,
    "no object": b"[1, 2]\n",
    "no type": b'{"loaded_bytes":1,"total_bytes":2}\n',
    "unknown type": b'{"type":"martian"}\n',
    "a field is missing": b'{"type":"loading","loaded_bytes":1}\n',
    "a field of another type": b'{"type":"loading","loaded_bytes":"1","total_bytes":2}\n',
    "a huge number": b'{"type":"loading","loaded_bytes":1e999,"total_bytes":2}\n',
    "nested deeply": NESTED,
    "nested deeply in an unknown field": b'{"type":"ready","x":' + NESTED,
    "nested deeply before the type": b'{"x":' + NESTED,
}


@pytest.mark.parametrize("line", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_a_wire_error(line: bytes) -> None:
    with pytest.raises(WireError, match="not a report"):
        decode_report(line)
    with pytest.raises(WireError, match="not a StageSpec"):
        decode_spec(line, StageSpec)
    with pytest.raises(WireError, match="not a ReferenceSpec"):
        decode_spec(line, ReferenceSpec)


@given(st.binary(max_size=40))
def test_random_bytes_are_a_wire_error(line: bytes) -> None:
    with pytest.raises(WireError):
        decode_report(line)
    with pytest.raises(WireError):
        decode_spec(line, ReferenceSpec)


@given(reports, st.data())
def test_a_damaged_line_is_a_wire_error_or_another_report(
    report: Report, data: st.DataObject
) -> None:
    line = bytearray(encode_line(report))
    line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_report(bytes(line))
    except WireError:
        return
    assert isinstance(decoded, Report)


def test_a_spec_of_the_other_kind_is_refused() -> None:
    with pytest.raises(WireError, match="not a StageSpec"):
        decode_spec(encode_line(ReferenceSpec("m", (1,), 2)), StageSpec)


def test_unknown_fields_are_skipped() -> None:
    # A newer worker may say more.
    fields = {**json.loads(READY), "new": {"a": [1]}}
    assert decode_report(msgspec.json.encode(fields)) == Ready(1, "cpu")
