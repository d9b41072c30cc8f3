"""Who takes part in the rack, and whether their clocks agree."""

from collections.abc import Iterator

from tbcluster.cluster.doctor import amounts
from tbcluster.cluster.doctor.finding import Finding, Status, failed, ok, warning
from tbcluster.cluster.doctor.rack_map import RackMap
from tbcluster.machine import Machine, NodeState, NodeView

# RackView.serving_state of a model that answers, and how one begins that never will.
READY = "ready"
FAILED_STATE = "failed"
MAX_CLOCK_OFFSET_S = 1.0


def check_nodes(rack: RackMap) -> Iterator[Finding]:
    """A rack has a node that can be given work."""
    if not rack.rack.nodes:
        yield failed("nodes", None, "the rack has no node", "tbcluster init")
    elif not rack.online():
        yield failed("nodes", None, "no node is online", "tbcluster agent")
    elif not rack.is_alone:
        members = [node for node in rack.rack.nodes if node.state is not NodeState.REVOKED]
        yield ok("nodes", None, f"{len(rack.online())} of {len(members)} nodes are online")


def check_states(rack: RackMap) -> Iterator[Finding]:
    """Each node is there; a revoked one is meant to be away."""
    # What is being served does without the nodes that are away.
    away = Status.WARNING if rack.rack.serving_state == READY else Status.FAILED
    for node in rack.rack.nodes:
        match node.state:
            case NodeState.ONLINE if node.is_drained:
                yield ok("state", node.name, f"drained: {undrain(node)} takes it back")
            case NodeState.ONLINE:
                yield ok("state", node.name, "online")
            case NodeState.REVOKED:
                yield ok("state", node.name, "revoked: it may not connect")
            case NodeState.REFUSED:
                yield Finding("state", node.name, away, *_refusal(rack, node))
            case NodeState.OFFLINE if node.is_drained:
                yield ok("state", node.name, f"offline and drained: {undrain(node)} takes it back")
            case NodeState.OFFLINE:
                yield Finding("state", node.name, away, *_absence(node))


def check_serving(rack: RackMap) -> Iterator[Finding]:
    """What is served answers, or is on its way."""
    model, state = rack.rack.serving, rack.rack.serving_state or "its state is not known"
    if model is None:
        return
    if state.startswith(FAILED_STATE):
        fix = f"end `tbcluster serve {model}`, mend what it says, and start it again"
        yield failed("serving", None, f"{model} is not served: {state}", fix)
    else:
        yield ok("serving", None, f"{model}: {state}")


def undrain(node: NodeView) -> str:
    """The command, for a sentence."""
    return f"`tbcluster undrain {node.name}`"


def _refusal(rack: RackMap, node: NodeView) -> tuple[str, str]:
    ours = rack.rack.tbcluster_version
    if node.machine is not None and node.machine.tbcluster_version != ours:
        theirs = node.machine.tbcluster_version
        return (
            f"refused: it runs tbcluster {theirs or 'of no version'}, the coordinator {ours}",
            f"install tbcluster {ours} on it, then start its agent again: tbcluster agent",
        )
    why = node.refused_because or "the coordinator does not say why"
    return f"refused: {why}", "tbcluster agent"


def _absence(node: NodeView) -> tuple[str, str]:
    heard = node.seconds_since_heard
    since = "not heard" if heard is None else f"last heard {amounts.duration(heard)} ago"
    sleeps = node.machine.sleep_minutes if node.machine is not None else None
    asleep = f"; it is set to sleep after {sleeps} idle minutes" if sleeps else ""
    detail = f"offline: {since}{asleep}"
    return detail, (
        "tbcluster service install (or `tbcluster agent` in a terminal, for as long as that is "
        "open)"
    )


def check_clock(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """Logs and tokens with a time limit need clocks that agree."""
    offset = node.clock_offset_s
    if offset is None:
        return
    if abs(offset) <= MAX_CLOCK_OFFSET_S:
        yield ok("clock", node.name, f"{abs(offset):.1f} s from the coordinator's")
        return
    how = "ahead of" if offset > 0 else "behind"
    yield warning(
        "clock",
        node.name,
        f"its clock is {amounts.duration(abs(offset))} {how} the coordinator's",
        "sudo sntp -sS time.apple.com"
        if machine.system.startswith("macOS")
        else "sudo timedatectl set-ntp true",
    )
