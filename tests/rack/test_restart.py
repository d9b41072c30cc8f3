"""A coordinator that is killed and started again serves what it had served, with the weights where
they are."""

import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tbcluster.cluster.trust import MemberFile, TrustFolder
from tbcluster.demo import MODEL_PATH
from tests.doubles.namespaces import Network, needs_namespaces
from tests.doubles.own_speed import know_speed
from tests.doubles.rack import RackDouble
from tests.doubles.waiting import wait_until
from tests.rack.racks import Answers, check_answers, listing

pytestmark = needs_namespaces

# On a machine that does nothing else it takes little more than the coordinator computes, most of
# which is importing; a service manager's own pause is not in it.
RESTART_S = 5.0


class ServiceRack(RackDouble):
    """Two nodes whose agents are services, as is the coordinator: it is none of their parents."""

    def __init__(self, network: Network) -> None:
        network.add("head", "two")
        self._head_end, _ = network.switch("head", "two", multicast=False)
        super().__init__(network, "head", "two")
        self.enroll_all()
        members = MemberFile(TrustFolder(self.home("head"))).nodes()
        know_speed(self.home("head"), None, node_ids=[member.node_id for member in members])
        path = self.home("head").parent / "rack.toml"
        path.write_text(listing(self.nodes, [self._head_end.ipv4]), encoding="utf-8")
        self.agents = [self.start(node, "agent", "--rack", str(path)) for node in self.nodes]
        self.coordinator = self.keep("head", "serve", "--stages", "2")
        self.await_ready()

    def workers(self) -> dict[int, psutil.Process]:
        """The stage workers of all nodes, by process id."""
        return {
            process.pid: process
            for process in self.processes()
            if "tbcluster.stage" in process.cmdline()
        }


@pytest.fixture(scope="module")
def rack() -> Iterator[ServiceRack]:
    with Network() as network, ServiceRack(network) as made:
        yield made


def test_a_killed_coordinator_serves_again_in_seconds_with_no_weights_read(
    rack: ServiceRack, answers: Answers, record_property: Callable[[str, object], None]
) -> None:
    check_answers(rack, answers)
    before = rack.workers()
    read = {pid: worker.io_counters().read_chars for pid, worker in before.items()}
    assert len(before) == 2
    rack.coordinator.kill()
    began = time.monotonic()
    wait_until(rack.is_ready, "the rack serves again")
    check_answers(rack, answers)
    took_s = time.monotonic() - began
    computed = rack.coordinator.process.cpu_times()
    record_property("served again after", f"{took_s:.2f} s")
    assert computed.user + computed.system < RESTART_S
    assert rack.workers().keys() == before.keys(), rack.said()
    weights = sum(file.stat().st_size for file in MODEL_PATH.glob("*.safetensors"))
    for pid, worker in before.items():
        assert worker.io_counters().read_chars - read[pid] < weights / 10


def test_a_coordinator_begins_anew_when_it_is_asked(rack: ServiceRack, answers: Answers) -> None:
    before = rack.workers()
    num_starts = rack.coordinator.num_starts
    rack.coordinator.process.send_signal(signal.SIGHUP)
    rack.coordinator.await_output("beginning anew")
    rack.await_ready()
    check_answers(rack, answers)
    assert rack.workers().keys() == before.keys(), rack.said()
    assert rack.coordinator.num_starts == num_starts


def test_an_end_on_purpose_is_no_crash(rack: ServiceRack) -> None:
    served = rack.home("head") / "served.json"
    assert served.exists()
    assert rack.coordinator.stop() == 128 + signal.SIGTERM
    assert not served.exists()
    wait_until(lambda: not rack.workers(), "the stage workers have ended")
