"""What each machine has to give: MLX, memory, disk."""

from collections.abc import Iterator

from tbcluster.cluster.doctor import amounts
from tbcluster.cluster.doctor.finding import Finding, failed, ok, warning
from tbcluster.cluster.doctor.rack_map import RackMap
from tbcluster.machine import Machine, NodeState, NodeView

MIN_FREE_BYTES = 10 * 10**9
MIN_FREE_SHARE = 0.05
NO_DISK_BYTES = 10**9
MIN_AVAILABLE_SHARE = 0.1
# macOS's own limit was seen between 0.66 and 0.88 of the memory.
LOW_WIRED_SHARE = 0.6
HIGH_WIRED_SHARE = 0.95


def check_compute(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """MLX answers, and on a Mac it computes on the GPU."""
    compute = machine.compute
    if compute is None:
        yield failed(
            "compute",
            node.name,
            "MLX does not start on this machine",
            "python -m tbcluster.stage.probe (with the Python that runs tbcluster: it says why)",
        )
    elif compute.backend == "CPU" and machine.system.startswith("macOS"):
        yield warning("compute", node.name, *_no_metal(machine))
    else:
        yield ok("compute", node.name, f"{compute.backend} ({compute.device})")


def _no_metal(machine: Machine) -> tuple[str, str]:
    if machine.architecture != "arm64":
        return (
            f"MLX computes on the CPU: this Python is built for {machine.architecture}",
            "install tbcluster with a Python for arm64",
        )
    return (
        "MLX computes on the CPU: it finds no Metal GPU, as in a virtual machine",
        "run tbcluster on the Mac itself",
    )


def check_memory(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """Memory is left for a model. Once the node runs stages, it is meant to be full."""
    if machine.memory_bytes <= 0:
        return
    total, available = amounts.memory(machine.memory_bytes), machine.available_bytes
    if (
        available is not None
        and not node.stages
        and available < MIN_AVAILABLE_SHARE * machine.memory_bytes
    ):
        yield warning(
            "memory",
            node.name,
            f"only {amounts.memory(available)} of {total} are available",
            "close other programs; `top -o mem` shows the largest"
            if machine.system.startswith("macOS")
            else "close other programs; `ps aux --sort=-rss` shows the largest",
        )
    elif machine.compute is not None:
        working_set = amounts.memory(machine.compute.working_set_bytes)
        yield ok("memory", node.name, f"models may take {working_set} of {total}")


def check_wired_limit(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """The system's own limit stands: another one is gone after a reboot."""
    limit_mb = machine.wired_limit_mb
    if limit_mb is None or machine.memory_bytes <= 0:
        return
    if limit_mb == 0:
        yield ok("wired-limit", node.name, "the system's own")
        return
    share = limit_mb * 2**20 / machine.memory_bytes
    detail = f"iogpu.wired_limit_mb is {limit_mb}, {share:.0%} of the memory"
    if share < LOW_WIRED_SHARE:
        why, fix = "models could take more", "sudo sysctl iogpu.wired_limit_mb=0"
    elif share > HIGH_WIRED_SHARE:
        why, fix = "too little is left for macOS", "sudo sysctl iogpu.wired_limit_mb=0"
    else:
        why = "it is lost at a reboot, and a model that needs it does not fit then"
        fix = f"sudo sysctl iogpu.wired_limit_mb={limit_mb} (after each reboot; 0 is the default)"
    yield warning("wired-limit", node.name, f"{detail}: {why}", fix)


def check_disk(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """There is room for models, and for the system."""
    total, free = machine.disk_total_bytes, machine.disk_free_bytes
    if total <= 0:
        return
    detail = f"{amounts.disk(free)} of {amounts.disk(total)} are free"
    fix = "hf cache ls (shows what models take; `hf cache rm` removes them)"
    if free < NO_DISK_BYTES:
        yield failed("disk", node.name, f"{detail}: the disk is full", fix)
    elif free < MIN_FREE_BYTES or free < MIN_FREE_SHARE * total:
        yield warning("disk", node.name, detail, fix)
    else:
        yield ok("disk", node.name, detail)


def check_local_network(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """macOS lets the agent speak to the other machines."""
    if not machine.system.startswith("macOS"):
        return
    if not machine.is_lan_blocked:
        yield ok("local-network", node.name, "not blocked")
        return
    others = [n for n in rack.rack.nodes if n is not node and n.state is not NodeState.REVOKED]
    say = failed if others else warning
    yield say(
        "local-network",
        node.name,
        "macOS keeps the agent from the local network (Local Network privacy); a LaunchDaemon is "
        "exempt",
        "tbcluster service install",
    )


def check_probes(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """Everything that was to be found out was found out."""
    for error in machine.probe_errors:
        yield warning("probe", node.name, f"could not be found out: {error}")
    if not machine.probe_errors:
        yield ok("probe", node.name, "everything was found out")
