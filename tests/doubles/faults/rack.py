"""A rack for faults: an agent on each node that survives the coordinator, and a model whose answers
do not end by themselves."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import httpx

from tbcluster.cluster.trust import MemberFile, TrustFolder
from tests.doubles.faults.clients import Asked, RunningStream, eight
from tests.doubles.faults.server import RECOVERY_S, is_well
from tests.doubles.namespaces import Network
from tests.doubles.own_speed import know_speed
from tests.doubles.rack import HTTP_PORT, RackDouble, Service
from tests.doubles.waiting import wait_until

HEAD, TWO, THREE = NODES = ("head", "two", "three")


class FaultRack(RackDouble):
    """Three nodes at one switch, each with an agent that is kept running as a service, and a
    coordinator on the head node that is kept running too.

    Args:
        model: A folder.
        options: Of `serve`.
    """

    url = f"http://127.0.0.1:{HTTP_PORT}"

    def __init__(self, network: Network, model: Path, *options: str) -> None:
        network.add(*NODES)
        self.ends = {end.node: end for end in network.switch(*NODES)}
        self.model = model
        self._options = options
        self.agents: dict[str, Service] = {}
        super().__init__(network, *NODES)

    def serve(self) -> None:
        """Start everything."""
        self.start_agents()
        self.keep(HEAD, "serve", str(self.model), *self._options)
        self.await_ready()

    def start_agents(self) -> None:
        """Start all but the coordinator. The nodes' speeds are known."""
        self.enroll_all()
        members = MemberFile(TrustFolder(self.home(HEAD))).nodes()
        know_speed(self.home(HEAD), self.model, node_ids=[member.node_id for member in members])
        for node in NODES:
            self.agents[node] = self.keep(node, "agent")

    def env(self, node: str) -> dict[str, str]:
        """What a process needs that is to belong to the node."""
        return self._env(node)

    @property
    def coordinator(self) -> Service:
        """`serve`, as a service."""
        return self.services[HEAD]

    def eight(self, num_tokens: int) -> list[Asked]:
        """See `clients.eight`."""
        return eight(self.model.name, num_tokens)

    @property
    def run_folders(self) -> list[Path]:
        """Where its nodes' sockets are."""
        return [self.sockets(node) for node in NODES]

    def inside(self) -> AbstractContextManager[None]:
        """Where clients run: on the head node."""
        return self.network.inside(HEAD)

    def submit(self, asked: Asked) -> RunningStream:
        """Ask for it."""
        return RunningStream(self.url, asked, self.inside())

    # What it says

    def health(self) -> dict[str, Any] | None:
        """What the server says of itself; None while it does not answer."""
        with self.network.inside(HEAD), suppress(httpx.HTTPError, ValueError):
            facts: dict[str, Any] = self._http.get("/health", timeout=5.0).json()
            return facts if "stages" in facts else None
        return None

    def stages(self) -> list[dict[str, Any]]:
        """Of the model: `node`, `pid`, `state` and more of each; none while nobody answers."""
        health = self.health()
        return [] if health is None else list(health["stages"])

    def stage(self, index: int) -> dict[str, Any]:
        """Of one stage."""
        (found,) = (stage for stage in self.stages() if stage["index"] == index)
        return found

    def nodes_in_use(self) -> set[str]:
        """Those that run stages."""
        return {stage["node"] for stage in self.stages()}

    def is_well(self) -> bool:
        """Whether it answers, with all stages up."""
        return is_well(self.health())

    def await_well(self, deadline_s: float = RECOVERY_S) -> None:
        """Wait until it is."""
        self._await(self.is_well, "the rack is well", deadline_s)

    def await_nodes(self, *nodes: str) -> None:
        """Wait until these run the stages, and it is well."""
        self._await(lambda: self.nodes_in_use() == set(nodes), f"{nodes} run stages", RECOVERY_S)
        self.await_well()

    def _await(self, is_so: Callable[[], bool], what: str, deadline_s: float) -> None:
        try:
            wait_until(is_so, what, deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.health()}\n{self.said()}") from None

    # What happens to it

    def cut(self, node: str) -> None:
        """Unplug a node from the switch."""
        self.network.cut(node, self.ends[node].interface)

    def mend(self, node: str) -> None:
        """Plug it in again."""
        self.network.mend(node, self.ends[node].interface)

    def kill_coordinator(self) -> float:
        """End it with nothing asked first; gives the seconds until it answers again."""
        started = time.monotonic()
        self.coordinator.kill()
        self.await_well()
        return time.monotonic() - started
