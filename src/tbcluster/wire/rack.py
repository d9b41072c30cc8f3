"""The messages of the control plane, between the coordinator and the agents.

One msgpack frame each, validated against the types below when it is decoded. They cross
connections that are encrypted and whose both ends are authenticated; who sent a message is known
from its connection, never from what it says.
"""

from typing import TypeVar

import msgspec

from tbcluster.errors import WireError
from tbcluster.machine import Gauges, Interface, Machine, PathMeasurement, RackView
from tbcluster.wire.control import Report, Routes, WorkerSpec
from tbcluster.wire.messages import PROTOCOL_VERSION
from tbcluster.wire.tensors import Buffer

# Counts up with every change of these messages; PROTOCOL_VERSION counts the data plane's.
RACK_PROTOCOL = 4
# What to fetch of a model is a list of spans: of one with 600 GB some 40,000, 3 MB.
MAX_MESSAGE_BYTES = 16 << 20


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """An agent's first message, and again after each reconnection.

    `protocol` and `tbcluster_version` never change, so that any version can read them.

    Attributes:
        incarnation: Random, new at each start of the agent.
        probe_port: Where it answers other nodes' measurements.
        run_dir: Folder of its workers' sockets, for stages that sit beside one another.
        user_id: Whose processes its workers are, by number.
        weights_port: Where it lets other nodes copy weights; 0 for nowhere.
        certificate: The one it shows there, and to other nodes, in PEM.
        data_protocol: Of the messages between its stages.
    """

    protocol: int
    tbcluster_version: str
    incarnation: str
    machine: Machine
    probe_port: int
    run_dir: str
    user_id: int
    weights_port: int = 0
    certificate: str = ""
    data_protocol: int = PROTOCOL_VERSION


class HelloVersions(msgspec.Struct, frozen=True, tag="hello"):
    """What can be read of any version's `Hello`."""

    protocol: int
    tbcluster_version: str
    # 0: it says nothing of it.
    data_protocol: int = 0


class AgentBeat(msgspec.Struct, frozen=True, tag="agent-beat"):
    """The agent is there; `time` is its clock (Unix, seconds), `workers` what it runs.

    Attributes:
        gauges: What its machine's said last; None before that, and where they cannot be read.
    """

    time: float
    workers: tuple[str, ...] = ()
    gauges: Gauges | None = None


class WorkerSaid(msgspec.Struct, frozen=True, tag="worker-said"):
    """A report of a stage worker, passed on.

    Attributes:
        serial: Counts what an agent says of its workers, from 1 for each incarnation of the agent
            and of the coordinator; what is not greater than the last one heard was heard before.
    """

    worker_id: str
    report: Report
    serial: int = 0


class WorkerStarted(msgspec.Struct, frozen=True, tag="worker-started"):
    """The process is there; `serial` as in `WorkerSaid`."""

    worker_id: str
    pid: int
    serial: int = 0


class WorkerEnded(msgspec.Struct, frozen=True, tag="worker-ended"):
    """A worker's process is gone, or could not be started: `what` says how, for people; `serial`
    as in `WorkerSaid`."""

    worker_id: str
    what: str
    serial: int = 0


class Inspected(msgspec.Struct, frozen=True, tag="inspected"):
    """The machine as it is now."""

    machine: Machine


class Measured(msgspec.Struct, frozen=True, tag="measured"):
    """The paths to a peer, best first; none if it answered on no address."""

    peer_id: str
    paths: tuple[PathMeasurement, ...]


class PathsSeen(msgspec.Struct, frozen=True, tag="paths-seen"):
    """Which of the measured paths to a peer answer now, by address; sent when that changes."""

    peer_id: str
    alive: tuple[str, ...]
    dead: tuple[str, ...]


class AskRack(msgspec.Struct, frozen=True, tag="ask-rack"):
    """A command on the head node asks for everything there is to know.

    Attributes:
        inspects: Whether the machines are looked at anew.
        measures: Whether the links are measured anew.
        may_drain: Name of a node that is to be drained: `Refused` comes instead of an answer if
            what is served would not fit on the others. Empty for none.
    """

    inspects: bool = False
    measures: bool = False
    may_drain: str = ""


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The coordinator takes the agent in; `incarnation` is new at each start of the coordinator."""

    incarnation: str
    cluster_name: str
    node_name: str
    addresses: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The coordinator does not take the agent in; `reason` says what to do."""

    reason: str


class Goodbye(msgspec.Struct, frozen=True, tag="goodbye"):
    """The coordinator ends, and its workers with it. One that is killed says nothing.

    Attributes:
        keeps_workers: Another coordinator follows at once: workers wait for it.
    """

    keeps_workers: bool = False


class CoordinatorBeat(msgspec.Struct, frozen=True, tag="coordinator-beat"):
    """The coordinator is there, and has heard of the agent's workers up to this serial."""

    heard: int = 0


class Peer(msgspec.Struct, frozen=True):
    """Another node, as an agent needs to know it; `certificate` as in `Hello`."""

    node_id: str
    name: str
    public_key: str
    probe_port: int
    interfaces: tuple[Interface, ...]
    certificate: str = ""


class Peers(msgspec.Struct, frozen=True, tag="peers"):
    """All other nodes that are online; who is not among them may not connect."""

    peers: tuple[Peer, ...]


class WhoAreYou(msgspec.Struct, frozen=True, tag="who-are-you"):
    """Something came from an agent that has not greeted this coordinator: say Hello."""


class StartWorker(msgspec.Struct, frozen=True, tag="start-worker"):
    """Start a stage worker, or an errand. A free worker of the same shard, if there is one, is
    given this spec and this id instead."""

    worker_id: str
    spec: WorkerSpec


class RouteWorker(msgspec.Struct, frozen=True, tag="route-worker"):
    """Tell a worker where its messages go from now on."""

    worker_id: str
    routes: Routes


class StopWorker(msgspec.Struct, frozen=True, tag="stop-worker"):
    """End a worker."""

    worker_id: str


class FreeWorker(msgspec.Struct, frozen=True, tag="free-worker"):
    """Nobody uses a stage worker any more, but another plan may: it keeps its weights for a while.
    To the coordinator it has ended; it is not named in beats any more. An errand is ended."""

    worker_id: str


class Inspect(msgspec.Struct, frozen=True, tag="inspect"):
    """Look at the machine anew."""


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Measure every path to a peer."""

    peer_id: str


class Watch(msgspec.Struct, frozen=True, tag="watch"):
    """These paths to a peer were measured before: say when one of them stops answering."""

    peer_id: str
    paths: tuple[PathMeasurement, ...]


class RackAnswer(msgspec.Struct, frozen=True, tag="rack-answer"):
    """What `AskRack` asked for."""

    rack: RackView


FromAgent = (
    Hello
    | AgentBeat
    | WorkerSaid
    | WorkerStarted
    | WorkerEnded
    | Inspected
    | Measured
    | PathsSeen
    | AskRack
)
FromCoordinator = (
    Welcome
    | Refused
    | Goodbye
    | CoordinatorBeat
    | WhoAreYou
    | Peers
    | StartWorker
    | RouteWorker
    | StopWorker
    | FreeWorker
    | Inspect
    | Measure
    | Watch
    | RackAnswer
)


class JoinRequest(msgspec.Struct, frozen=True, tag="join"):
    """A machine asks to become a node. The key it will have is the one of its connection. No text
    of this object shows the secret."""

    secret: str
    name: str
    protocol: int
    tbcluster_version: str

    def __repr__(self) -> str:
        return f"JoinRequest({self.name!r})"


class Joined(msgspec.Struct, frozen=True, tag="joined"):
    """It is a node now, under this name."""

    cluster_id: str
    cluster_name: str
    node_name: str


JoinAnswer = Joined | Refused

Message = TypeVar("Message")

_encoder = msgspec.msgpack.Encoder()
_from_agent: msgspec.msgpack.Decoder[FromAgent] = msgspec.msgpack.Decoder(FromAgent)
_from_coordinator: msgspec.msgpack.Decoder[FromCoordinator] = msgspec.msgpack.Decoder(
    FromCoordinator
)
_hello_versions: msgspec.msgpack.Decoder[HelloVersions] = msgspec.msgpack.Decoder(HelloVersions)
_join_request: msgspec.msgpack.Decoder[JoinRequest] = msgspec.msgpack.Decoder(JoinRequest)
_join_answer: msgspec.msgpack.Decoder[JoinAnswer] = msgspec.msgpack.Decoder(JoinAnswer)


def encode_message(message: FromAgent | FromCoordinator | JoinRequest | JoinAnswer) -> bytes:
    """A message as one frame."""
    return _encoder.encode(message)


def decode_from_agent(frame: Buffer) -> FromAgent:
    """Raises: WireError when it is no message of an agent."""
    return _decode(_from_agent, frame)


def decode_hello_versions(frame: Buffer) -> HelloVersions | None:
    """The versions in a `Hello` of which the rest is not understood; None if it is none."""
    try:
        return _hello_versions.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_from_coordinator(frame: Buffer) -> FromCoordinator:
    """Raises: WireError when it is no message of a coordinator."""
    return _decode(_from_coordinator, frame)


def decode_join_request(frame: Buffer) -> JoinRequest:
    """Raises: WireError when it is no request to join."""
    return _decode(_join_request, frame)


def decode_join_answer(frame: Buffer) -> JoinAnswer:
    """Raises: WireError when it is no answer to a request to join."""
    return _decode(_join_answer, frame)


def _decode(decoder: msgspec.msgpack.Decoder[Message], frame: Buffer) -> Message:
    try:
        return decoder.decode(frame)
    # RecursionError: a few kilobytes can nest deeper than any Python stack.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not a message of the control plane: {error}") from error
