"""A cluster's head node that machines can join, without a coordinator."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from tbcluster.cluster.trust import HeadIdentity, JoinDesk, JoinToken, MemberFile, TrustFolder
from tbcluster.cluster.trust.invitation import invite_node
from tests.doubles.waiting import wait_until


class TrustedHead:
    """Folder, identity and list of nodes of a head node."""

    def __init__(self, path: Path, name: str = "rack") -> None:
        self.folder = TrustFolder(path)
        self.head: HeadIdentity = self.folder.init(name, "head", free_control_port())
        self.members = MemberFile(self.folder)

    @property
    def join_port(self) -> int:
        """Where machines join while the desk is open."""
        return self.head.control_port + 1

    def invite(self, valid_s: float = 3600.0) -> JoinToken:
        """A token that leads to this machine, over loopback."""
        return replace(invite_node(self.head, self.members, valid_s), addresses=("127.0.0.1",))

    def names(self) -> list[str]:
        """Of all nodes."""
        return [member.name for member in self.members.nodes()]

    @contextmanager
    def desk(self) -> Iterator[JoinDesk]:
        """A join desk that runs, and is open if anyone is awaited."""
        desk = JoinDesk(self.head, self.members)
        desk.start()
        with closing(desk):
            if self.members.awaits_nodes():
                wait_until(lambda: listens(self.join_port), "the desk opens")
            yield desk


def free_control_port() -> int:
    """A TCP port that is free together with the next one."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def listens(port: int) -> bool:
    """Whether anything listens there, on loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
