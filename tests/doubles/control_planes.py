"""A control plane on this machine, with nodes that are admitted as real ones are."""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from tbcluster.cluster.rack.control_plane import ControlPlane
from tbcluster.cluster.rack.link_book import LinkBook, SavedLink
from tbcluster.cluster.trust import Member, MemberRing
from tbcluster.transport.curve import new_keys
from tbcluster.wire.control import CurveKeys
from tbcluster.wire.rack import Hello, Welcome
from tests.doubles.nodes import hello
from tests.doubles.scripted_agent import Answer, ScriptedAgent
from tests.doubles.trusted import TrustedHead


class RackOfScripts:
    """The control plane of a head node, and scripted agents; leaving the block closes all."""

    def __init__(self, path: Path) -> None:
        self.trusted = TrustedHead(path)
        self.head = self.trusted.head
        self.saved: list[bytes] = []
        self._agents: list[ScriptedAgent] = []
        self._keys: dict[str, CurveKeys] = {"head": self.trusted.folder.node().keys}
        # The ring sees changes of the file at once.
        self._time = 0.0
        self.plane = self._open(())

    def admit(self, name: str) -> Member:
        """A node of this name joins."""
        keys = self._keys[name] = new_keys()
        return self.trusted.members.admit(self.trusted.members.invite(60.0), keys.public, name)

    def member(self, name: str) -> Member:
        """The member of this name."""
        return next(one for one in self.trusted.members.nodes() if one.name == name)

    def id(self, name: str) -> str:
        """Its node id."""
        return self.member(name).node_id

    def connect(self, name: str) -> ScriptedAgent:
        """An agent with this node's keys, which has not said anything; "cluster" has the
        cluster's."""
        keys = self.head.keys if name == "cluster" else self._keys[name]
        agent = ScriptedAgent(self.head, keys)
        self._agents.append(agent)
        return agent

    def bring_up(
        self, name: str, said: Hello | None = None, *, answer: Answer = lambda _: None
    ) -> ScriptedAgent:
        """An agent of this node, once it is welcome."""
        if name not in self._keys:
            self.admit(name)
        agent = self.connect(name)
        agent.answer = answer
        agent.say(said or hello(f"{name}'s first"))
        agent.hear(Welcome)
        return agent

    def states(self) -> dict[str, str]:
        """The state of each node."""
        return {node.name: str(node.state) for node in self.plane.nodes()}

    def restart(self, links: Iterable[SavedLink]) -> None:
        """Another coordinator begins, with what was saved."""
        self.plane.close()
        self.plane = self._open(links)

    def close(self) -> None:
        for agent in self._agents:
            agent.close()
        self.plane.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self, links: Iterable[SavedLink]) -> ControlPlane:
        ring = MemberRing(self.trusted.members, self._clock)
        return ControlPlane(self.head, ring, LinkBook(links), ("192.0.2.1",), self.saved.append)

    def _clock(self) -> float:
        self._time += 10.0
        return self._time
