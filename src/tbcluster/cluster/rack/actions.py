"""What the coordinator does about what it hears; `Attendance` decides, `ControlPlane` performs."""

from collections.abc import Callable
from dataclasses import dataclass

from tbcluster.wire.control import Report, WorkerSpec
from tbcluster.wire.rack import (
    AskRack,
    FromCoordinator,
    Hello,
    Measured,
    PathsSeen,
    WorkerStarted,
)

# The spec of a worker for the node that said this of itself.
MakeSpec = Callable[[Hello], WorkerSpec]


@dataclass(frozen=True, slots=True)
class Send:
    """A message to whoever is behind this connection."""

    peer: bytes
    message: FromCoordinator


@dataclass(frozen=True, slots=True)
class NodeUp:
    """A node can be used."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeDown:
    """A node cannot be used any more."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeReconnected:
    """A node is there over another connection; what it was told just before may be lost."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node was revoked, drained or taken back."""

    node_id: str


@dataclass(frozen=True, slots=True)
class WorkerNews:
    """What a worker said; a text says how it ended."""

    worker_id: str
    news: Report | WorkerStarted | str


@dataclass(frozen=True, slots=True)
class LinkNews:
    """What a node found out about its ways to another."""

    source: str
    news: Measured | PathsSeen


@dataclass(frozen=True, slots=True)
class Looked:
    """A node has looked at its machine anew."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A command on the head node wants an answer."""

    peer: bytes
    question: AskRack


@dataclass(frozen=True, slots=True)
class Told:
    """A line for the log."""

    text: str


Action = (
    Send
    | NodeUp
    | NodeDown
    | NodeReconnected
    | NodeChanged
    | WorkerNews
    | LinkNews
    | Looked
    | Asked
    | Told
)
