"""All checks of a rack, in the order in which they are shown."""

from collections.abc import Callable, Iterable

from tbcluster.cluster.doctor import attendance, machines, network, power, thunderbolt, versions
from tbcluster.cluster.doctor.finding import Finding
from tbcluster.cluster.doctor.rack_map import RackMap
from tbcluster.cluster.doctor.thunderbolt_use import check_thunderbolt_use
from tbcluster.machine import Machine, NodeView, RackView

RACK_CHECKS: tuple[Callable[[RackMap], Iterable[Finding]], ...] = (
    attendance.check_nodes,
    attendance.check_states,
    attendance.check_serving,
    versions.check_tbcluster,
    versions.check_mlx,
    versions.check_mlx_lm,
    versions.check_os_builds,
    thunderbolt.check_cables,
    thunderbolt.check_bridge_loops,
    check_thunderbolt_use,
    network.check_measured,
    network.check_paths,
    network.check_dead_paths,
)
NODE_CHECKS: tuple[Callable[[RackMap, NodeView, Machine], Iterable[Finding]], ...] = (
    attendance.check_clock,
    machines.check_compute,
    machines.check_memory,
    machines.check_wired_limit,
    machines.check_disk,
    machines.check_local_network,
    power.check_sleep,
    power.check_power_loss,
    power.check_thermal,
    thunderbolt.check_docks,
    thunderbolt.check_rdma,
    machines.check_probes,
)


def check_rack(rack: RackView) -> list[Finding]:
    """Everything that can be said of a rack, first what concerns it as a whole. What is not known
    is not judged; a node that is away has one finding alone: that it is."""
    seen = RackMap(rack)
    findings = [finding for check in RACK_CHECKS for finding in check(seen)]
    for node, machine in seen.machines():
        for check in NODE_CHECKS:
            findings.extend(check(seen, node, machine))
    return findings
