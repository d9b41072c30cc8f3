"""The two messages of the data plane and their frames.

`Step` goes from the coordinator through every stage; `Result` comes back from the last one.
A message is a list of frames: a msgpack header, then the raw bytes of each tensor. The header is
validated against the types below when it is decoded; nothing is pickled.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from tbcluster.core import MicroBatch, SampledToken, VisitTiming
from tbcluster.errors import WireError
from tbcluster.wire.operations import CacheOperation
from tbcluster.wire.tensors import Buffer, Tensor, TensorSpec, attach_buffers

PROTOCOL_VERSION = 4
FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Boundary:
    """The value between two stages: the shape of a small tree, and its tensors.

    `structure` is made of the tagged lists of `tbcluster.model.boundary`.
    """

    structure: Any
    tensors: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Step:
    """One micro-batch on its way.

    `visit` counts passes over the stages (looped models make more than one). `error` is set by the
    first stage that fails: the later ones apply the cache operations and pass it on. `digests` has
    one entry per visit, like `timings`, where the micro-batch asks for them.
    """

    epoch: int
    step_id: int
    operations: tuple[CacheOperation, ...] = ()
    micro_batch: MicroBatch | None = None
    visit: int = 0
    boundary: Boundary | None = None
    error: str | None = None
    timings: tuple[VisitTiming, ...] = ()
    digests: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What the last stage sends back: token ids, one for each row, never logits.

    `vector` answers a pooled chunk: little-endian float32 of the model's width, the last token's
    hidden states or the sum of all the chunk's tokens'.
    """

    epoch: int
    step_id: int
    sampled: tuple[SampledToken, ...] = ()
    error: str | None = None
    timings: tuple[VisitTiming, ...] = ()
    vector: bytes | None = None
    digests: tuple[bytes, ...] = ()


# What was added since the last version has a default, so that its headers can be read as far as to
# tell that they are of another one.
class _StepHeader(msgspec.Struct, tag="step", array_like=True):
    version: int
    epoch: int
    step_id: int
    visit: int
    operations: tuple[CacheOperation, ...]
    micro_batch: MicroBatch | None
    structure: Any
    tensors: list[TensorSpec] | None
    error: str | None
    timings: tuple[VisitTiming, ...]
    digests: tuple[bytes, ...] = ()


class _ResultHeader(msgspec.Struct, tag="result", array_like=True):
    version: int
    epoch: int
    step_id: int
    sampled: tuple[SampledToken, ...]
    error: str | None
    timings: tuple[VisitTiming, ...]
    vector: bytes | None
    digests: tuple[bytes, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_step_decoder = msgspec.msgpack.Decoder(_StepHeader)
_result_decoder = msgspec.msgpack.Decoder(_ResultHeader)


def encode_step(step: Step) -> list[Buffer]:
    """A step as frames; tensor buffers are passed on without a copy."""
    boundary = step.boundary
    header = _StepHeader(
        version=PROTOCOL_VERSION,
        epoch=step.epoch,
        step_id=step.step_id,
        visit=step.visit,
        operations=step.operations,
        micro_batch=step.micro_batch,
        structure=boundary.structure if boundary else None,
        tensors=[tensor.spec for tensor in boundary.tensors] if boundary else None,
        error=step.error,
        timings=step.timings,
        digests=step.digests,
    )
    buffers = [t.data for t in boundary.tensors if t.data is not None] if boundary else []
    return [_encoder.encode(header), *buffers]


def decode_step(frames: list[Buffer]) -> Step:
    """The step in these frames.

    Raises:
        WireError: Not a step of this protocol version, or its tensors do not match its header.
    """
    header = _decode(_step_decoder, frames)
    boundary = None
    if header.tensors is None:
        if len(frames) > 1:
            raise WireError(f"{len(frames) - 1} frames follow a header that announces no tensors")
    else:
        boundary = Boundary(header.structure, attach_buffers(header.tensors, frames[1:]))
    return Step(
        epoch=header.epoch,
        step_id=header.step_id,
        operations=header.operations,
        micro_batch=header.micro_batch,
        visit=header.visit,
        boundary=boundary,
        error=header.error,
        timings=header.timings,
        digests=header.digests,
    )


def encode_result(result: Result) -> list[Buffer]:
    """A result as frames."""
    header = _ResultHeader(
        version=PROTOCOL_VERSION,
        epoch=result.epoch,
        step_id=result.step_id,
        sampled=result.sampled,
        error=result.error,
        timings=result.timings,
        vector=result.vector,
        digests=result.digests,
    )
    return [_encoder.encode(header)]


def decode_result(frames: list[Buffer]) -> Result:
    """The result in these frames.

    Raises:
        WireError: Not a result of this protocol version.
    """
    header = _decode(_result_decoder, frames)
    if len(frames) > 1:
        raise WireError(f"a result is one frame, got {len(frames)}")
    if header.vector is not None and len(header.vector) % FLOAT_BYTES:
        raise WireError(f"a vector of {len(header.vector)} bytes, which are no float32 numbers")
    return Result(
        epoch=header.epoch,
        step_id=header.step_id,
        sampled=header.sampled,
        error=header.error,
        timings=header.timings,
        vector=header.vector,
        digests=header.digests,
    )


def _decode(decoder: msgspec.msgpack.Decoder[Any], frames: list[Buffer]) -> Any:
    if not frames:
        raise WireError("an empty message")
    try:
        header = decoder.decode(frames[0])
    # RecursionError: a few kilobytes can nest deeper than any Python stack.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a header that does not parse: {error}") from error
    if header.version != PROTOCOL_VERSION:
        raise WireError(
            f"protocol version {header.version} came, this side speaks {PROTOCOL_VERSION}: "
            "run the same tbcluster version on every node"
        )
    return header
