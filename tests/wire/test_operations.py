"""Every cache operation survives the wire, alone and among others; garbage is a WireError."""

import contextlib
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import Grammar, LogitRules
from tbcluster.errors import WireError
from tbcluster.wire.messages import PROTOCOL_VERSION, Step, decode_step, encode_step
from tbcluster.wire.operations import (
    CacheOperation,
    CopyCache,
    DropCache,
    DropRules,
    ForgetSaved,
    JoinLane,
    KeepRows,
    KeepSaved,
    LoadCache,
    NewCache,
    NewRules,
    SaveCache,
    TakeRow,
)

RULES = LogitRules(((3, -1.5),), 0.5, 0.25, 1.1, 20, Grammar("g", (1,), (2, 3), True, 5))
RULES_ON_THE_WIRE = {
    "logit_bias": [[3, -1.5]],
    "presence_penalty": 0.5,
    "frequency_penalty": 0.25,
    "repetition_penalty": 1.1,
    "repetition_context": 20,
    "grammar": {
        "text": "g",
        "think_start": [1],
        "think_end": [2, 3],
        "is_thinking": True,
        "max_thinking": 5,
    },
}
# What it looks like on the wire is part of the protocol: `PROTOCOL_VERSION` counts the changes.
ON_THE_WIRE: dict[str, tuple[CacheOperation, list[Any]]] = {
    "new": (NewCache(4), ["new", 4]),
    "copy": (CopyCache(5, 4, 17), ["copy", 5, 4, 17]),
    "join": (JoinLane(6, (4, 5)), ["join", 6, [4, 5]]),
    "take": (TakeRow(7, 6, 1), ["take", 7, 6, 1]),
    "keep": (KeepRows(6, (0, 1)), ["keep", 6, [0, 1]]),
    "drop": (DropCache(6), ["drop", 6]),
    "save": (SaveCache(7, "aa"), ["save", 7, "aa"]),
    "load": (LoadCache(8, "aa"), ["load", 8, "aa"]),
    "forget": (ForgetSaved("aa"), ["forget", "aa"]),
    "keep_saved": (KeepSaved(("aa", "bb")), ["keep_saved", ["aa", "bb"]]),
    "rules": (NewRules(9, RULES, (1, 2), (3,)), ["rules", 9, RULES_ON_THE_WIRE, [1, 2], [3]]),
    "drop_rules": (DropRules(9), ["drop_rules", 9]),
}

ids = st.integers(0, 2**63 - 1)
rows = st.lists(st.integers(0, 255), max_size=9).map(tuple)
finite = st.floats(allow_nan=False)
grammars = st.builds(Grammar, st.text(), rows, rows, st.booleans(), st.none() | ids)
logit_rules = st.builds(
    LogitRules,
    st.lists(st.tuples(ids, finite), max_size=4).map(tuple),
    finite,
    finite,
    finite,
    st.none() | ids,
    st.none() | grammars,
)
operations = st.one_of(
    st.builds(NewCache, ids),
    st.builds(CopyCache, ids, ids, ids),
    st.builds(JoinLane, ids, st.lists(ids, max_size=9).map(tuple)),
    st.builds(TakeRow, ids, ids, ids),
    st.builds(KeepRows, ids, rows),
    st.builds(DropCache, ids),
    st.builds(SaveCache, ids, st.text()),
    st.builds(LoadCache, ids, st.text()),
    st.builds(ForgetSaved, st.text()),
    st.builds(KeepSaved, st.lists(st.text(), max_size=9).map(tuple)),
    st.builds(NewRules, ids, logit_rules, rows, rows),
    st.builds(DropRules, ids),
)


def over_the_wire(*sent: CacheOperation) -> tuple[CacheOperation, ...]:
    frames = encode_step(Step(1, 1, sent))
    return decode_step([memoryview(bytes(frame)) for frame in frames]).operations


def step_with(sent: Any) -> bytes:
    """The header of a step with anything in the place of its operations."""
    return msgspec.msgpack.encode(
        ["step", PROTOCOL_VERSION, 1, 1, 0, sent, None, None, None, None, []]
    )


@pytest.mark.parametrize(("operation", "wire"), ON_THE_WIRE.values(), ids=ON_THE_WIRE.keys())
def test_each_survives_the_wire(operation: CacheOperation, wire: list[Any]) -> None:
    assert over_the_wire(operation) == (operation,)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(operation)) == wire
    assert decode_step([step_with([wire])]).operations == (operation,)


def test_no_operation_is_left_out_here() -> None:
    assert {type(operation) for operation, _ in ON_THE_WIRE.values()} == set(
        get_args(CacheOperation)
    )


@given(st.lists(operations, max_size=8))
def test_any_number_of_them_keeps_its_order(sent: list[CacheOperation]) -> None:
    assert over_the_wire(*sent) == tuple(sent)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(None, id="nothing"),
        pytest.param(["new", 1], id="an operation that is no list of them"),
        pytest.param([None], id="an operation of nothing"),
        pytest.param([[]], id="an operation without a tag"),
        pytest.param([["fork", 1]], id="an unknown tag"),
        pytest.param([[1, 1]], id="a number for a tag"),
        pytest.param([{"op": "new", "cache_id": 1}], id="a map"),
        pytest.param([["new"]], id="no cache to make"),
        pytest.param([["new", "1"]], id="a text for an id"),
        pytest.param([["new", 1.5]], id="a fraction for an id"),
        pytest.param([["new", 2**64 - 1], ["new", -1], ["drop", None]], id="a bad one at the end"),
        pytest.param([["copy", 1, 2]], id="a copy that does not say how much is trimmed"),
        pytest.param([["join", 1, 2]], id="a source that is no list"),
        pytest.param([["join", 1, [2, "3"]]], id="a text for a source"),
        pytest.param([["take", 1, 2]], id="no row to take"),
        pytest.param([["keep", 1, None]], id="no rows to keep"),
        pytest.param([["keep", 1, [0.5]]], id="half a row"),
        pytest.param([["save", 1]], id="no name to save under"),
        pytest.param([["save", 1, 7]], id="a number for a name"),
        pytest.param([["load", 1, ["a"]]], id="a list for a name"),
        pytest.param([["forget", None]], id="no name to forget"),
        pytest.param([["keep_saved"]], id="no names to keep"),
        pytest.param([["rules", 1, None, [], []]], id="no rules to keep"),
        pytest.param([["rules", 1, {"logit_bias": [[1]]}, [], []]], id="a bias of nothing"),
        pytest.param([["rules", 1, {"grammar": {}}, [], []]], id="a grammar without text"),
        pytest.param([["drop_rules", "1"]], id="a text for an id of rules"),
        pytest.param([["keep_saved", "aa"]], id="a name that is no list of them"),
        pytest.param([["keep_saved", ["aa", 7]]], id="a number for a name to keep"),
    ],
)
def test_garbage_is_a_wire_error(sent: Any) -> None:
    with pytest.raises(WireError):
        decode_step([step_with(sent)])


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=9,
)
tags = st.sampled_from(sorted(ON_THE_WIRE)) | values


@given(st.lists(st.tuples(tags, values, values).map(list) | values, max_size=3))
def test_random_operations_decode_or_are_a_wire_error(sent: list[Any]) -> None:
    with contextlib.suppress(WireError):
        assert all(
            isinstance(operation, get_args(CacheOperation))
            for operation in decode_step([step_with(sent)]).operations
        )


@pytest.mark.parametrize("wire", [wire for _, wire in ON_THE_WIRE.values()], ids=ON_THE_WIRE.keys())
def test_one_byte_flipped_is_a_wire_error_or_another_operation(wire: list[Any]) -> None:
    header = step_with([wire])
    for place in range(len(header)):
        for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            flipped = header[:place] + bytes([header[place] ^ mask]) + header[place + 1 :]
            with contextlib.suppress(WireError):
                decode_step([flipped])
