"""What a stage worker and the process that started it say to each other.

JSON lines: one `StageSpec` into the worker's standard input, then reports out of its standard
output. The input stays open for as long as the worker may live: its end means the parent is gone.
"""

from typing import TypeVar

import msgspec

from tbcluster.core import StageRange
from tbcluster.errors import WireError

STOP_LINE = b"stop\n"


class StageSpec(msgspec.Struct, frozen=True):
    """Everything a worker needs to become stage `index`.

    Attributes:
        inbound: Endpoint to bind; steps come in here.
        next_stage: Endpoint that steps go on to (from the last stage, stage 0: for looped models).
        results: Endpoint of the coordinator; only the last stage sends there.
        run_dir: Folder of the sockets, removed by a worker whose parent has died.
        kv_bits: 8 or 4 for quantized KV caches, None for plain ones.
        saved_folder: Where this stage keeps prefixes on disk; None for nowhere.
    """

    index: int
    num_stages: int
    model_path: str
    layers: StageRange
    epoch: int
    inbound: str
    next_stage: str
    results: str
    run_dir: str
    kv_bits: int | None = None
    saved_folder: str | None = None


class ReferenceSpec(msgspec.Struct, frozen=True):
    """Asks for the unsharded model's greedy continuation of `prompt`, with `kv_bits` as in
    `StageSpec`."""

    model_path: str
    prompt: tuple[int, ...]
    num_tokens: int
    kv_bits: int | None = None


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """Weights are being read."""

    loaded_bytes: int
    total_bytes: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The stage takes steps; `note` is a line for the user."""

    memory_bytes: int
    backend: str
    note: str | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The stage cannot be loaded; `kind` names the error class."""

    kind: str
    message: str


class Reference(msgspec.Struct, frozen=True, tag="reference"):
    """Greedy continuation of the probe by the unsharded model.

    Attributes:
        tokens: One id per generated token.
        logprobs: Natural logarithm of each one's probability.
        margins: By how much each one's logprob exceeds the runner-up's.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    margins: tuple[float, ...]


Report = Loading | Ready | Failed | Reference

_encoder = msgspec.json.Encoder()
_report_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)

Spec = TypeVar("Spec", StageSpec, ReferenceSpec)


def encode_line(message: Report | StageSpec | ReferenceSpec) -> bytes:
    """One line, newline included."""
    return _encoder.encode(message) + b"\n"


def decode_report(line: bytes) -> Report:
    """The report in this line.

    Raises:
        WireError: It holds something else.
    """
    try:
        return _report_decoder.decode(line)
    # RecursionError: unknown fields are skipped, however deep they nest.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a report of a stage worker: {error}") from error


def decode_spec(line: bytes, kind: type[Spec]) -> Spec:
    """The spec in this line.

    Raises:
        WireError: It holds something else.
    """
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a {kind.__name__}: {error}") from error
