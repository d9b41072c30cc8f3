"""What is seen of a rack at one moment, on one page: the JSON of `/live`.

Data only. The dashboard, `tbcluster top` and programs read it; times are Unix seconds, and None is
what nobody knows.
"""

import msgspec


class LiveNode(msgspec.Struct, frozen=True):
    """A machine, and what the loaded models hold and do there.

    Attributes:
        state: "online", "offline", "refused" or "revoked".
        available_bytes: Memory that is free now.
        budget_bytes: What models may take: the rest is the system's.
        weight_bytes, kv_used_bytes, kv_budget_bytes: Of all stages there.
        load: Busiest stage's share of the last second in which it computed, 0 to 1.
        cpu_load: Of all cores, 0 to 1.
        watts: What the machine draws.
        power_source: Where that is from: a meter's name, or "estimate".
        temperature_c: Of its hottest sensor.
    """

    name: str
    state: str
    is_head: bool = False
    is_drained: bool = False
    chip: str | None = None
    system: str | None = None
    memory_bytes: int | None = None
    available_bytes: int | None = None
    budget_bytes: int | None = None
    weight_bytes: int = 0
    kv_used_bytes: int = 0
    kv_budget_bytes: int = 0
    load: float = 0.0
    cpu_load: float | None = None
    watts: float | None = None
    power_source: str | None = None
    temperature_c: float | None = None
    seconds_since_heard: float | None = None


class LiveLink(msgspec.Struct, frozen=True):
    """The way between two nodes: the better direction of its best path.

    Attributes:
        kind: "thunderbolt", "ethernet", "wifi", "bridge", "loopback" or "other".
        is_up: Whether any path answers now.
        is_used: Whether hidden states of a loaded model travel along it.
    """

    source: str
    target: str
    kind: str
    is_up: bool
    is_used: bool
    round_trip_us: float | None = None
    gbps: float | None = None


class LiveStage(msgspec.Struct, frozen=True):
    """A stage of a model; means are of the last second's steps, None where there was none.

    Attributes:
        state: "fetching", "loading", "ready" or "dead".
        compute_ms: In which it computed a step.
        wire_ms: Which a step took to get there from the stage before, or the coordinator.
        wait_ms: In which it had nothing to do, before each step.
        load: Share of the last second in which it computed, 0 to 1.
    """

    index: int
    replica: int
    node: str
    first_layer: int
    last_layer: int
    state: str
    loaded_bytes: int = 0
    total_bytes: int = 0
    weight_bytes: int = 0
    kv_used_bytes: int = 0
    kv_budget_bytes: int = 0
    compute_ms: float | None = None
    wire_ms: float | None = None
    wait_ms: float | None = None
    load: float = 0.0
    num_restarts: int = 0


class LivePlannedStage(msgspec.Struct, frozen=True):
    """What a plan promises of a stage: bytes of its node's memory, and milliseconds of a step."""

    node: str
    replica: int
    first_layer: int
    last_layer: int
    weight_bytes: int
    kv_bytes: int
    activation_bytes: int
    reserve_bytes: int
    memory_bytes: int
    decode_ms: float
    hop_ms: float


class LivePlan(msgspec.Struct, frozen=True):
    """What goes where, and why.

    Attributes:
        tokens_per_s: Of all promised streams together, as predicted; `stream_tokens_per_s` of one
            alone, `prefill_tokens_per_s` of a long prompt.
        reasons: Lines for a person.
        left_out: Pairs of a node that runs nothing, and why.
    """

    context: int
    streams: int
    tokens_per_s: float
    stream_tokens_per_s: float
    prefill_tokens_per_s: float
    stages: tuple[LivePlannedStage, ...] = ()
    reasons: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


class LiveModel(msgspec.Struct, frozen=True):
    """A model that is loaded, or is being loaded; rates are of the last second.

    Attributes:
        state: "starting", "ready", "recovering", "starved", "failed" or "closed".
        doing: With what it is busy, while it is not ready.
        num_open: Requests that it has.
        num_running, num_waiting: Sequences that are being computed, and that wait for room.
        wire_ms: A step's whole way less what stages computed; `step_ms` the whole way.
    """

    name: str
    state: str
    doing: str | None = None
    error: str | None = None
    context_length: int | None = None
    num_open: int = 0
    num_running: int = 0
    num_waiting: int = 0
    tokens_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    step_ms: float | None = None
    wire_ms: float | None = None
    num_recoveries: int = 0
    last_recovery_s: float | None = None
    stages: tuple[LiveStage, ...] = ()
    plan: LivePlan | None = None


class LiveEvent(msgspec.Struct, frozen=True):
    """Something that happened.

    Attributes:
        number: Counts up from 1.
        kind: "node_lost", "node_back", "stage_lost", "stage_back", "recovered", "model" or "note".
        level: "good", "info", "warning" or "bad".
    """

    number: int
    at: float
    kind: str
    level: str
    text: str


class LiveView(msgspec.Struct, frozen=True):
    """Everything.

    Attributes:
        state: As in `/health`: "ok", "starting", "recovering", ...
        default_model: Which answers requests that name none.
        loadable: Names of all models that can be asked for.
        tokens_per_s, num_running, num_waiting, watts: Of all models, and all nodes, together;
            `watts` is None where one node's is not known.
        is_estimate: Whether a part of `watts` is not measured.
        joules_per_token: Of the last minute's generated tokens.
        events: The newest ones, oldest first.
    """

    at: float
    version: str
    state: str
    cluster_name: str | None = None
    doing: str | None = None
    default_model: str | None = None
    loadable: tuple[str, ...] = ()
    tokens_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    num_running: int = 0
    num_waiting: int = 0
    watts: float | None = None
    is_estimate: bool = False
    joules_per_token: float | None = None
    nodes: tuple[LiveNode, ...] = ()
    links: tuple[LiveLink, ...] = ()
    models: tuple[LiveModel, ...] = ()
    events: tuple[LiveEvent, ...] = ()


_decoder = msgspec.json.Decoder(LiveView)


def decode_view(content: bytes | str) -> LiveView:
    """The view in the data of one event.

    Raises:
        ValueError: It is none.
    """
    return _decoder.decode(content)
