"""Where machines join: a port that is open only while someone is awaited.

Anyone may connect, since a new machine's key is known to nobody. One kind of message is
understood; what does not parse gets no answer, and no message changes anything without the secret
of a token.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from importlib.metadata import version

from tbcluster.cluster.trust.identity import HeadIdentity
from tbcluster.cluster.trust.members import MemberFile
from tbcluster.cluster.trust.names import is_name
from tbcluster.cluster.trust.refusals import BREAK_S, Refusals
from tbcluster.errors import JoinError, RackError, TrustError, WireError
from tbcluster.transport.control import Arrival, ControlServer
from tbcluster.transport.curve import Guard
from tbcluster.wire.rack import (
    RACK_PROTOCOL,
    JoinAnswer,
    Joined,
    JoinRequest,
    Refused,
    decode_join_request,
    encode_message,
)

logger = logging.getLogger(__name__)

# A request is a few hundred bytes.
MAX_JOIN_BYTES = 2048
# A new invitation, and the end of the last one, are seen this long after.
LOOK_S = 0.5


class JoinDesk:
    """A thread that admits machines for as long as there are invitations.

    Several processes of the head node may have one: the port belongs to whoever binds it first,
    and all of them write the same file.
    """

    def __init__(
        self,
        head: HeadIdentity,
        members: MemberFile,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._head = head
        self._members = members
        self._clock = clock
        self._refusals = Refusals()
        self._ends = threading.Event()
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="join desk", daemon=True)

    def start(self) -> None:
        """Admit machines from now on."""
        self._thread.start()

    def close(self) -> None:
        """Admit nobody any more. What was answered just before may be lost on its way."""
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ends.is_set():
            server = self._open() if self._awaits() else None
            if server is None:
                self._ends.wait(LOOK_S)
                continue
            try:
                while not self._ends.is_set() and self._awaits():
                    self._attend(server)
            finally:
                server.close()

    def _awaits(self) -> bool:
        if self._refusals.is_break(self._clock()):
            return False
        try:
            return self._members.awaits_nodes()
        except TrustError as error:
            self._complain(f"nobody can join: {error}")
            return False

    def _open(self) -> ControlServer | None:
        port = self._head.control_port + 1
        guard = Guard(self._head.keys, lambda public_key: True)
        try:
            server = ControlServer(f"tcp://*:{port}", guard, max_message_bytes=MAX_JOIN_BYTES)
        except RackError as error:
            trouble = f"machines cannot join by way of this process: {error}"
            if getattr(error.__cause__, "errno", None) == errno.EADDRINUSE:
                trouble = (
                    f"port {port} is in use, most likely by `tbcluster serve` on this machine: "
                    "then it admits them, and nothing is wrong"
                )
        else:
            self._trouble = ""
            return server
        self._complain(trouble)
        return None

    def _attend(self, server: ControlServer) -> None:
        arrival = server.receive(LOOK_S)
        if arrival is None:
            return
        try:
            request = decode_join_request(_only_frame(arrival))
        except WireError:
            self._refuse()
            return
        answer = self._answer(arrival.key, request)
        if isinstance(answer, Refused):
            self._refuse()
        server.send(arrival.peer, [encode_message(answer)])

    def _answer(self, public_key: str, request: JoinRequest) -> JoinAnswer:
        mine = version("tbcluster")
        if (request.protocol, request.tbcluster_version) != (RACK_PROTOCOL, mine):
            return Refused(
                f"this machine runs tbcluster {request.tbcluster_version[:64]} (protocol "
                f"{request.protocol}), the head node {mine} (protocol {RACK_PROTOCOL}): install "
                "the same version on both. The token can still be used"
            )
        if not is_name(request.name):
            return Refused("the name for this machine is malformed: choose one with --name")
        try:
            member = self._members.admit(request.secret, public_key, request.name)
        except JoinError as error:
            return Refused(str(error))
        except TrustError as error:
            self._complain(f"nobody can join: {error}")
            return Refused("the head node cannot use its list of nodes: see what it printed")
        logger.info("Admitted %s (%s)", member.name, member.node_id)
        return Joined(self._head.cluster_id, self._head.cluster_name, member.name)

    def _refuse(self) -> None:
        if self._refusals.add(self._clock()):
            logger.warning(
                "Machines cannot join for %.0f s: too many requests without a valid token", BREAK_S
            )

    def _complain(self, trouble: str) -> None:
        """Say it, once for as long as it lasts."""
        if trouble != self._trouble:
            self._trouble = trouble
            logger.warning("%s", trouble)


def _only_frame(arrival: Arrival) -> bytes:
    if len(arrival.frames) != 1:
        raise WireError(f"a request to join has one frame, not {len(arrival.frames)}")
    return bytes(arrival.frames[0])
