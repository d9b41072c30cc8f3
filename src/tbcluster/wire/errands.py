"""What a node is asked to do for a while beside running stages: fetch weights, measure its speed.

An errand is a process of its own, started, watched and ended by the agent as stage workers are.
"""

import msgspec

from tbcluster.checkpoint import Listing, Span


class Neighbour(msgspec.Struct, frozen=True):
    """Another node that weights can be copied from.

    Attributes:
        addresses: Best first.
        certificate: The one it shows, in PEM.
    """

    node_id: str
    name: str
    addresses: tuple[str, ...]
    port: int
    certificate: str


class FetchPart(msgspec.Struct, frozen=True):
    """Spans, and where they come from first: a neighbour's id, or empty for the hub. A source that
    fails is replaced by another one."""

    spans: tuple[Span, ...]
    source: str = ""


class FetchSpec(msgspec.Struct, frozen=True, tag="fetch"):
    """Have these parts of a model's files on this node's disk.

    Attributes:
        parts: Disjoint; together all that the node needs, small files whole.
        hub: Endpoint of the hub; empty for the node's own setting.
        store: Folder of the node's own store; its agent fills this in and what follows.
        folders: Where models may lie that need not be fetched (read-only, shared).
        tls_files: Certificate and key to show to neighbours.
    """

    listing: Listing
    parts: tuple[FetchPart, ...]
    neighbours: tuple[Neighbour, ...] = ()
    hub: str = ""
    store: str = ""
    folders: tuple[str, ...] = ()
    tls_files: tuple[str, ...] = ()


class SurveySpec(msgspec.Struct, frozen=True, tag="survey"):
    """Say what of a model is on this node's disk; `store` and `folders` as in `FetchSpec`.

    Attributes:
        verifies: Whether all of it is read and hashed, and not only what has changed.
        tries_hub: Whether to see if this node can get the model from the hub.
        hub: As in `FetchSpec`.
    """

    listing: Listing
    store: str = ""
    folders: tuple[str, ...] = ()
    verifies: bool = False
    tries_hub: bool = False
    hub: str = ""


class ShareSpec(msgspec.Struct, frozen=True, tag="share"):
    """Let other nodes copy from this node's store, over TLS, until the input ends. `Accepted` comes
    in lines after it.

    Attributes:
        port: To listen at if it is free; 0 for any.
    """

    store: str
    tls_files: tuple[str, ...]
    port: int = 0


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """Whoever shows one of these certificates (PEM) may copy; nobody else."""

    certificates: tuple[str, ...]


class CalibrateSpec(msgspec.Struct, frozen=True, tag="calibrate"):
    """Measure how fast weights of these kinds are computed with (`ModelProfile.speed_kind`)."""

    kinds: tuple[str, ...]


class Checking(msgspec.Struct, frozen=True, tag="checking"):
    """What is on the disk is being read and hashed."""

    done_bytes: int
    total_bytes: int


class Fetching(msgspec.Struct, frozen=True, tag="fetching"):
    """How far a fetch is; `held_bytes` of the total were here before."""

    done_bytes: int
    total_bytes: int
    held_bytes: int = 0
    hub_bytes: int = 0
    neighbour_bytes: int = 0


class Fetched(msgspec.Struct, frozen=True, tag="fetched"):
    """All parts are here, verified, in files below `folder`, which can be loaded from."""

    folder: str
    held_bytes: int
    hub_bytes: int
    neighbour_bytes: int


class Surveyed(msgspec.Struct, frozen=True, tag="surveyed"):
    """All verified bytes of the model that are here; `reaches_hub`: of a hub that was tried,
    whether it gives the model to this node."""

    spans: tuple[Span, ...]
    reaches_hub: bool = False


class MeasuredSpeed(msgspec.Struct, frozen=True):
    """The fields of `planner.nodes.NodeSpeed`, for one kind of weights."""

    kind: str
    rates: tuple[tuple[int, float], ...]
    layer_s: float
    stage_s: float
    cache_s_per_byte: float


class Calibrated(msgspec.Struct, frozen=True, tag="calibrated"):
    """How fast this node computes."""

    speeds: tuple[MeasuredSpeed, ...]
