"""Asking for the state of the rack, whether a coordinator runs or not."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tbcluster.cluster.rack.rack import Rack, head_of
from tbcluster.cluster.trust.folder import TrustFolder
from tbcluster.cluster.trust.identity import HeadIdentity
from tbcluster.errors import PortInUseError, RackError, WireError
from tbcluster.machine import NodeState, NodeView, RackView
from tbcluster.transport.control import ControlClient
from tbcluster.wire.control import Route
from tbcluster.wire.rack import (
    MAX_MESSAGE_BYTES,
    AskRack,
    FromCoordinator,
    RackAnswer,
    Refused,
    decode_from_coordinator,
    encode_message,
)
from tbcluster.wire.tensors import Buffer

# Agents that were left alone look for a coordinator every two seconds or so.
GATHER_S = 5.0
# The one that is started for the head node looks at its machine first.
START_S = 15.0
# A coordinator answers at once, unless it has to look or measure first.
ANSWER_S = 5.0
THOROUGH_ANSWER_S = 150.0
LOOPBACK, CONNECT_S = "127.0.0.1", 1.0


def ask_rack(
    folder: TrustFolder,
    *,
    inspects: bool = False,
    measures: bool = False,
    wait_s: float = GATHER_S,
) -> RackView:
    """Everything there is to know of the rack.

    The running coordinator is asked; where none runs, this process is one for a moment.

    Args:
        inspects: Whether the nodes look at their machines anew.
        measures: Whether the links are measured anew.
        wait_s: How long other nodes are waited for where no coordinator runs.

    Raises:
        RackError: This machine is no head node, or the coordinator does not answer.
        TrustError: The folder's files cannot be used.
    """
    head = head_of(folder)
    try:
        with gathered(folder, wait_s) as rack:
            return rack.view(inspects=inspects, measures=measures)
    except PortInUseError:
        return _ask_running(head, AskRack(inspects, measures))


def ask_running(folder: TrustFolder) -> RackView | None:
    """The same of the running coordinator; None where none runs.

    Raises:
        RackError: This machine is no head node, or the coordinator does not answer.
        TrustError: The folder's files cannot be used.
    """
    head = head_of(folder)
    try:
        return _ask_running(head, AskRack()) if _listens(head) else None
    except RackError:
        if _listens(head):
            raise
        return None  # it was about to end


def why_not_drained(folder: TrustFolder, name: str) -> str | None:
    """Why what is served needs the node of this name; None where nothing does.

    Raises:
        RackError: This machine is no head node, or the coordinator does not answer.
        TrustError: The folder's files cannot be used.
    """
    head = head_of(folder)
    if not _listens(head):
        return None
    answer = _answer_of(head, AskRack(may_drain=name))
    return answer.reason if isinstance(answer, Refused) else None


@contextmanager
def gathered(
    folder: TrustFolder, wait_s: float = GATHER_S, *, memory_bytes: int | None = None
) -> Iterator[Rack]:
    """A rack for a moment: with the head node, and whoever else has come within `wait_s`.

    Args:
        memory_bytes: As `Rack` takes it.

    Raises:
        PortInUseError: A coordinator runs here already.
        RackError: This machine is no head node.
        TrustError: The folder's files cannot be used.
    """
    rack = Rack(folder, port_patience_s=0.0, memory_bytes=memory_bytes).start()
    try:
        rack.plane.wait_for(_all_there, wait_s)
        rack.plane.wait_for(_head_there, START_S)
        yield rack
    finally:
        # A coordinator that crashed may be about to come back for what it ran.
        rack.close(keeps_workers=True)


def _all_there(nodes: list[NodeView]) -> bool:
    return all(node.state is not NodeState.OFFLINE for node in nodes)


def _head_there(nodes: list[NodeView]) -> bool:
    return all(node.state is not NodeState.OFFLINE for node in nodes if node.is_head)


def _listens(head: HeadIdentity) -> bool:
    try:
        socket.create_connection((LOOPBACK, head.control_port), CONNECT_S).close()
    except OSError:
        return False
    return True


def _ask_running(head: HeadIdentity, question: AskRack) -> RackView:
    answer = _answer_of(head, question)
    if isinstance(answer, Refused):
        raise RackError(answer.reason)
    return answer.rack


def _answer_of(head: HeadIdentity, question: AskRack) -> RackAnswer | Refused:
    port = head.control_port
    client = ControlClient(
        Route(f"tcp://{LOOPBACK}:{port}", head.keys.public),
        head.keys,
        max_message_bytes=MAX_MESSAGE_BYTES,
    )
    try:
        client.send([encode_message(question)])
        is_quick = not (question.inspects or question.measures or question.may_drain)
        give_up = time.monotonic() + (ANSWER_S if is_quick else THOROUGH_ANSWER_S)
        while (left := give_up - time.monotonic()) > 0:
            frames = client.receive(left)
            answer = _understood(frames[0]) if frames else None
            if isinstance(answer, RackAnswer | Refused):
                return answer
    finally:
        client.close()
    raise RackError(
        f"port {port} is taken and does not answer as this cluster's coordinator: end what uses it"
    )


def _understood(frame: Buffer) -> FromCoordinator:
    try:
        return decode_from_coordinator(frame)
    except WireError as error:
        raise RackError(
            "the coordinator that runs here is of another version of tbcluster: start it again "
            f"with this one ({error})"
        ) from error
