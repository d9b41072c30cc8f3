"""Messages survive the wire whole; anything else is a WireError and never another exception."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.core import (
    MicroBatch,
    Pooling,
    Sample,
    SampledToken,
    SamplingParams,
    VisitTiming,
)
from tbcluster.errors import WireError
from tbcluster.wire.messages import (
    PROTOCOL_VERSION,
    Boundary,
    Result,
    Step,
    decode_result,
    decode_step,
    encode_result,
    encode_step,
)
from tbcluster.wire.operations import CopyCache, DropCache, JoinLane, NewCache
from tbcluster.wire.tensors import ITEM_BYTES, Buffer, Tensor, TensorSpec

ids = st.integers(0, 2**63 - 1)
finite = st.floats(allow_nan=False)
params = st.builds(SamplingParams, finite, finite, ids, finite, ids, st.none() | st.integers(0, 20))
micro_batches = st.builds(
    MicroBatch,
    cache_id=ids,
    tokens=st.lists(ids, min_size=1, max_size=9).map(tuple),
    samples=st.lists(st.builds(Sample, params, ids, st.none() | ids), max_size=4).map(tuple),
    pooling=st.none() | st.sampled_from(Pooling),
    is_examined=st.booleans(),
)
# All kinds of them are in test_operations.py.
operations = st.lists(st.builds(NewCache, ids) | st.builds(DropCache, ids), max_size=4).map(tuple)
timings = st.lists(st.builds(VisitTiming, ids, ids), max_size=4).map(tuple)
digests = st.lists(st.binary(max_size=9), max_size=4).map(tuple)
sampled_tokens = st.builds(
    SampledToken,
    token=ids,
    logprob=st.none() | finite,
    top=st.lists(st.tuples(ids, finite), max_size=5).map(tuple),
    error=st.none() | st.text(),
)
structures = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | finite | st.text(),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(sorted(ITEM_BYTES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    spec = TensorSpec(dtype, shape, draw(st.booleans()))
    if not spec.sent:
        return Tensor(spec, None)
    num_bytes = math.prod(shape) * ITEM_BYTES[dtype]
    return Tensor(spec, draw(st.binary(min_size=num_bytes, max_size=num_bytes)))


steps = st.builds(
    Step,
    epoch=ids,
    step_id=ids,
    operations=operations,
    micro_batch=st.none() | micro_batches,
    visit=st.integers(0, 5),
    boundary=st.none() | st.builds(Boundary, structures, st.lists(tensors(), max_size=4)),
    error=st.none() | st.text(),
    timings=timings,
    digests=digests,
)
results = st.builds(
    Result,
    epoch=ids,
    step_id=ids,
    sampled=st.lists(sampled_tokens, max_size=4).map(tuple),
    error=st.none() | st.text(),
    timings=timings,
    vector=st.none() | st.lists(st.binary(min_size=4, max_size=4), max_size=3).map(b"".join),
    digests=digests,
)


def received(frames: list[Buffer]) -> list[Buffer]:
    """Frames as a socket hands them out: other objects with the same bytes."""
    return [memoryview(bytes(frame)) for frame in frames]


@given(steps)
def test_a_step_survives_the_wire(step: Step) -> None:
    assert decode_step(received(encode_step(step))) == step


@given(results)
def test_a_result_survives_the_wire(result: Result) -> None:
    assert decode_result(received(encode_result(result))) == result


def test_tensor_buffers_are_frames_of_their_own_and_not_copied() -> None:
    data = bytearray(b"12345678")
    unsent = Tensor(TensorSpec("float32", (1000,), sent=False), None)
    boundary = Boundary(["array", 1], [unsent, Tensor(TensorSpec("float32", (2,)), data)])
    header, *buffers = encode_step(Step(1, 1, boundary=boundary))
    assert len(buffers) == 1
    assert buffers[0] is data
    assert len(header) < 100


BOUNDARY = Boundary(
    ["tuple", [["array", 0], ["array", 1]]],
    [
        Tensor(TensorSpec("float32", (1, 2)), b"12345678"),
        Tensor(TensorSpec("bfloat16", (3,), sent=False), None),
    ],
)
FULL_STEP = Step(
    epoch=3,
    step_id=70_000,
    operations=(NewCache(4), CopyCache(5, 4, 3), JoinLane(6, (4, 5)), DropCache(2)),
    micro_batch=MicroBatch(
        6,
        (1, 2),
        (Sample(SamplingParams(0.7, 0.9, 40, 0.1, 5, 2), 3), Sample(SamplingParams(), 300)),
    ),
    visit=1,
    boundary=BOUNDARY,
    error="stage 1 failed",
    timings=(VisitTiming(10, 0), VisitTiming(2000, 1)),
)
FULL_RESULT = Result(
    3,
    70_000,
    (SampledToken(7, -0.5, ((7, -0.5), (2, -1.5))), SampledToken(9)),
    "late",
    (VisitTiming(10, 0), VisitTiming(2000, 1)),
)


def step_header(**changes: Any) -> bytes:
    fields = {
        "tag": "step",
        "version": PROTOCOL_VERSION,
        "epoch": 1,
        "step_id": 1,
        "visit": 0,
        "operations": [],
        "micro_batch": None,
        "structure": None,
        "tensors": None,
        "error": None,
        "timings": [],
    }
    assert set(changes) <= set(fields)
    return msgspec.msgpack.encode(list((fields | changes).values()))


def result_header(**changes: Any) -> bytes:
    fields = {
        "tag": "result",
        "version": PROTOCOL_VERSION,
        "epoch": 1,
        "step_id": 1,
        "sampled": [],
        "error": None,
        "timings": [],
        "vector": None,
    }
    assert set(changes) <= set(fields)
    return msgspec.msgpack.encode(list((fields | changes).values()))


def micro_batch(**changes: Any) -> dict[str, Any]:
    return {"cache_id": 1, "tokens": [2], "samples": [], **changes}


def spec(dtype: Any = "float32", shape: Any = (1,), sent: Any = True) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "sent": sent}


def test_the_headers_of_the_tables_below_are_sound() -> None:
    assert decode_result([result_header()]) == Result(1, 1)
    assert decode_step([step_header()]) == Step(1, 1)
    chunk = decode_step([step_header(micro_batch=micro_batch())])
    assert chunk.micro_batch == MicroBatch(1, (2,))
    framed = decode_step([step_header(tensors=[spec()]), b"1234"])
    assert framed.boundary == Boundary(None, [Tensor(TensorSpec("float32", (1,)), b"1234")])


STEP_FRAMES = encode_step(FULL_STEP)
RESULT_FRAMES = encode_result(FULL_RESULT)
# `structure` may be anything, so it is where garbage gets deepest into the decoder.
NESTED = step_header(structure="XX").replace(b"\xa2XX", b"\x91" * 100_000 + b"\xc0")


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([], id="an empty message"),
        pytest.param([b""], id="an empty frame"),
        pytest.param([b"GET / HTTP/1.1\r\n\r\n"], id="garbage"),
        pytest.param([b"\xff" * 100], id="more garbage"),
        pytest.param([b"\xdd\xff\xff\xff\xff"], id="an array of four billion"),
        pytest.param([STEP_FRAMES[0][:-1], *STEP_FRAMES[1:]], id="a truncated header"),
        pytest.param([bytes(STEP_FRAMES[0]) + b"\0", *STEP_FRAMES[1:]], id="a header too long"),
        pytest.param(STEP_FRAMES[:1], id="a missing frame"),
        pytest.param([*STEP_FRAMES, b""], id="an extra frame"),
        pytest.param([step_header(), b"1234"], id="a frame without an announced tensor"),
        pytest.param([STEP_FRAMES[0], b"1234"], id="a frame of the wrong size"),
        pytest.param(STEP_FRAMES[::-1], id="frames in the wrong order"),
        pytest.param(RESULT_FRAMES, id="a result"),
        pytest.param([step_header(tag="stop")], id="an unknown tag"),
        pytest.param([step_header(tag=None)], id="no tag"),
        pytest.param([step_header(version=PROTOCOL_VERSION + 1)], id="a later version"),
        pytest.param([step_header(version=0)], id="version zero"),
        pytest.param([step_header(version=None)], id="no version"),
        pytest.param([step_header(epoch=1.0)], id="a float for an id"),
        pytest.param([step_header(epoch="1")], id="a text for an id"),
        pytest.param([step_header(operations=[["fork", 1]])], id="an unknown operation"),
        pytest.param([step_header(operations=[["new"]])], id="an operation without a cache"),
        pytest.param([step_header(micro_batch={"cache_id": 1})], id="a micro-batch of no tokens"),
        pytest.param([step_header(micro_batch=micro_batch(samples=None))], id="no samples"),
        pytest.param([step_header(micro_batch=micro_batch(samples=[None]))], id="no sample"),
        pytest.param([step_header(micro_batch=micro_batch(pooling="max"))], id="unknown pooling"),
        pytest.param(
            [step_header(micro_batch=micro_batch(samples=[{"position": 1}]))],
            id="a sample of no parameters",
        ),
        pytest.param([step_header(micro_batch=micro_batch(tokens=["a"]))], id="a text for a token"),
        pytest.param([step_header(timings=None)], id="no timings"),
        pytest.param([step_header(timings=[None])], id="a missing timing"),
        pytest.param([step_header(timings=[{"compute_us": 1}])], id="half a timing"),
        pytest.param([step_header(timings=[7])], id="a number for a timing"),
        pytest.param([step_header(tensors=[{"dtype": "float32"}])], id="a spec without a shape"),
        pytest.param([step_header(tensors=[spec("float64")]), b"12345678"], id="unknown dtype"),
        pytest.param([step_header(tensors=[spec(None)]), b"1234"], id="no dtype"),
        pytest.param([step_header(tensors=[spec(shape=[-1])]), b"1234"], id="negative size"),
        pytest.param([step_header(tensors=[spec(shape=[-1, -1])]), b"1234"], id="negative sizes"),
        pytest.param([step_header(tensors=[spec(shape=[2**40], sent=False)])], id="huge size"),
        pytest.param([step_header(tensors=[spec(shape=[1.0])]), b"1234"], id="a fractional size"),
        pytest.param([step_header(tensors=[spec(sent=None)]), b"1234"], id="neither sent nor not"),
        pytest.param([NESTED], id="nesting deeper than the stack"),
        pytest.param([step_header(error="XX").replace(b"XX", b"\xff\xfe")], id="invalid UTF-8"),
    ],
)
def test_what_is_no_step_is_refused(frames: list[Buffer]) -> None:
    with pytest.raises(WireError):
        decode_step(frames)


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([], id="an empty message"),
        pytest.param([b""], id="an empty frame"),
        pytest.param([b"garbage"], id="garbage"),
        pytest.param([RESULT_FRAMES[0][:-1]], id="a truncated header"),
        pytest.param([*RESULT_FRAMES, b""], id="an extra frame"),
        pytest.param(STEP_FRAMES[:1], id="a step"),
        pytest.param([result_header(version=PROTOCOL_VERSION + 1)], id="a later version"),
        pytest.param([result_header(sampled=[{"token": "a"}])], id="a text for a token"),
        pytest.param([result_header(sampled=None)], id="no tuple of tokens"),
        pytest.param([result_header(sampled={"token": 1})], id="a token without a tuple"),
        pytest.param([result_header(sampled=[None])], id="a row without a token"),
        pytest.param([result_header(timings=[1])], id="a number for a timing"),
        pytest.param([result_header(vector="1234")], id="a text for a vector"),
        pytest.param([result_header(vector=[1.0])], id="a list for a vector"),
        pytest.param([result_header(vector=b"123456")], id="one number and a half"),
    ],
)
def test_what_is_no_result_is_refused(frames: list[Buffer]) -> None:
    with pytest.raises(WireError):
        decode_result(frames)


def test_a_wrong_version_says_what_to_do() -> None:
    with pytest.raises(
        WireError, match=rf"version 7 .* speaks {PROTOCOL_VERSION}: .* same tbcluster version"
    ):
        decode_step([step_header(version=7)])


def decodes_or_refuses(decode: Callable[[list[Buffer]], Any], frames: list[Buffer]) -> None:
    with contextlib.suppress(WireError):
        decode(frames)


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_arbitrary_bytes(frames: list[Buffer]) -> None:
    decodes_or_refuses(decode_step, frames)
    decodes_or_refuses(decode_result, frames)


@given(st.binary(max_size=40))
def test_arbitrary_bytes_in_the_structure(garbage: bytes) -> None:
    header = step_header(structure="XX", tensors=[]).replace(b"\xa2XX", garbage)
    decodes_or_refuses(decode_step, [header])


@pytest.mark.parametrize(
    ("decode", "frames"),
    [(decode_step, STEP_FRAMES), (decode_result, RESULT_FRAMES)],
    ids=["step", "result"],
)
def test_one_byte_flipped_or_the_rest_cut_off(
    decode: Callable[[list[Buffer]], Any], frames: list[Buffer]
) -> None:
    # A few hundred bytes: every place is tried, with every bit and with all of them.
    for number, frame in enumerate(map(bytes, frames)):
        for place in range(len(frame)):
            changed = [frame[:place]]
            for mask in (1, 2, 4, 8, 16, 32, 64, 128, 255):
                changed.append(frame[:place] + bytes([frame[place] ^ mask]) + frame[place + 1 :])
            for other in changed:
                decodes_or_refuses(decode, [*frames[:number], other, *frames[number + 1 :]])
