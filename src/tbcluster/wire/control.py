"""What a stage worker and the process that started it say to each other.

JSON lines: one `StageSpec` into the worker's standard input, then reports out of its standard
output. The input stays open for as long as the worker may live: its end means the parent is gone.
Further lines are `Order`s: where messages go, or another place among the stages of a new plan.
"""

from typing import TypeVar

import msgspec

from tbcluster.core import StageRange
from tbcluster.errors import WireError
from tbcluster.wire.errands import (
    Accepted,
    Calibrated,
    CalibrateSpec,
    Checking,
    Fetched,
    Fetching,
    FetchSpec,
    ShareSpec,
    Surveyed,
    SurveySpec,
)

STOP_LINE = b"stop\n"


class CurveKeys(msgspec.Struct, frozen=True):
    """A CURVE key pair, each key in 40 characters of Z85. The secret one never leaves its node, and
    no text of this object shows it."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"CurveKeys({self.public!r})"


class Route(msgspec.Struct, frozen=True):
    """Where messages are sent to.

    Attributes:
        endpoint: For ZeroMQ, such as tcp://192.0.2.1:4711.
        server_key: Public key that the other end must have; None for a connection in the clear,
            which stays on its machine.
    """

    endpoint: str
    server_key: str | None = None


class Routes(msgspec.Struct, frozen=True, tag="routes"):
    """Where a worker's messages go.

    Attributes:
        serial: Counts up; the worker's `Routed` repeats it.
        next_stage: Steps go on to it; from the last stage to stage 0, where a model loops.
        results: The coordinator; the last stage sends there.
    """

    serial: int
    next_stage: Route | None = None
    results: Route | None = None


class StageSpec(msgspec.Struct, frozen=True, tag="stage"):
    """Everything a worker needs to become stage `index`. The first `Routes` come in a line after
    it, and others whenever they change. To a worker that holds this `shard` already it is an order
    to take another place: it keeps its weights, drops its caches, binds anew and says `Bound` and
    `Ready` once more.

    Attributes:
        model: A folder, or a Hugging Face id. To an agent empty for the bundled model, whose
            folder it fills in.
        inbound: Endpoint to bind; steps come in here. The port of a tcp one may be `*`: which one
            it was is in `Bound`. Each place has another ipc name: the file of the one before is
            removed a moment after it was left.
        run_dir: Folder of the sockets, removed by a worker whose parent has died.
        kv_bits: 8 or 4 for quantized KV caches, None for plain ones.
        saved_folder: Where this stage keeps prefixes on disk; None for nowhere.
        keys: This node's own, for connections that leave the machine; its agent fills them in.
        senders: Public keys that may connect to `inbound`; with `keys`.
        shard: Names what is loaded (model, revision, layers, type of caches): workers of equal
            shards can stand in for each other. Empty for one that nobody can take over.
        step_limit_s: A step that takes longer than this means that the stage is stuck; 0 for no
            limit. The plan's prediction with ample room.
    """

    index: int
    num_stages: int
    model: str
    layers: StageRange
    epoch: int
    inbound: str
    run_dir: str
    kv_bits: int | None = None
    saved_folder: str | None = None
    keys: CurveKeys | None = None
    senders: tuple[str, ...] = ()
    shard: str = ""
    step_limit_s: float = 0.0


class ReferenceSpec(msgspec.Struct, frozen=True):
    """Asks for the unsharded model's greedy continuation of `prompt`, with `kv_bits` as in
    `StageSpec`."""

    model_path: str
    prompt: tuple[int, ...]
    num_tokens: int
    kv_bits: int | None = None


class Bound(msgspec.Struct, frozen=True, tag="bound"):
    """Steps can be sent to this port (0 where the endpoint has none).

    Attributes:
        place: Which of the worker's places it is, counted from 0. What it says until this one is
            bound may still be about an earlier one.
    """

    port: int
    place: int = 0


class Routed(msgspec.Struct, frozen=True, tag="routed"):
    """Whatever is sent from now on goes where the `Routes` of this serial say."""

    serial: int


class Loading(msgspec.Struct, frozen=True, tag="loading"):
    """Weights are being read."""

    loaded_bytes: int
    total_bytes: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The stage takes steps; `note` is a line for the user."""

    memory_bytes: int
    backend: str
    note: str | None = None


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """The worker is alive; said a few times a second, by a thread that computes nothing, from the
    worker's start. Its parent listens; it goes no further.

    Attributes:
        num_steps: Steps that were finished so far.
        busy_s: For how long it has been at the step in hand; 0 while it has none.
    """

    num_steps: int
    busy_s: float = 0.0


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


Report = (
    Bound
    | Routed
    | Loading
    | Ready
    | Beat
    | Failed
    | Reference
    | Surveyed
    | Checking
    | Fetching
    | Fetched
    | Calibrated
)
# What a stage worker is told after its first spec.
Order = Routes | StageSpec
# What an agent can be asked to run.
WorkerSpec = StageSpec | SurveySpec | FetchSpec | CalibrateSpec

_encoder = msgspec.json.Encoder()
_report_decoder: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)
_order_decoder: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)

Spec = TypeVar(
    "Spec",
    StageSpec,
    ReferenceSpec,
    Routes,
    SurveySpec,
    FetchSpec,
    CalibrateSpec,
    ShareSpec,
    Accepted,
)


def encode_line(
    message: Report | WorkerSpec | ReferenceSpec | Routes | ShareSpec | Accepted,
) -> bytes:
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


def decode_order(line: bytes) -> Order:
    """The order in this line.

    Raises:
        WireError: It holds something else.
    """
    try:
        return _order_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not an order to a stage worker: {error}") from error


def decode_spec(line: bytes, kind: type[Spec]) -> Spec:
    """The spec in this line.

    Raises:
        WireError: It holds something else.
    """
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a {kind.__name__}: {error}") from error
