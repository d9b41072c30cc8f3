"""Machines that stay awake, come back after a power cut, and run at full speed."""

from collections.abc import Iterator

from tbcluster.cluster.doctor.finding import Finding, ok, warning
from tbcluster.cluster.doctor.rack_map import RackMap
from tbcluster.machine import Machine, NodeView

# Never sleep, start again when power is back, wake for network access.
STAY_AWAKE = "sudo pmset -a sleep 0 autorestart 1 womp 1"
FULL_SPEED_PERCENT = 100


def check_sleep(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """A node that sleeps is gone."""
    minutes = machine.sleep_minutes
    if minutes is None:
        return
    if minutes > 0:
        yield warning("sleep", node.name, f"it sleeps after {minutes} idle minutes", STAY_AWAKE)
    else:
        yield ok("sleep", node.name, "never")


def check_power_loss(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """A node comes back by itself."""
    if machine.restarts_after_power_loss is None:
        return
    if machine.restarts_after_power_loss:
        yield ok("power-loss", node.name, "it starts again")
    else:
        yield warning("power-loss", node.name, "it stays off after a power cut", STAY_AWAKE)


def check_thermal(rack: RackMap, node: NodeView, machine: Machine) -> Iterator[Finding]:
    """A hot machine slows the whole pipeline down."""
    percent = machine.thermal_speed_limit
    if percent is None:
        return
    if percent < FULL_SPEED_PERCENT:
        yield warning(
            "thermal",
            node.name,
            f"it is hot and runs at {percent} % of its speed",
            "give it more air; `pmset -g therm` shows the limit",
        )
    else:
        yield ok("thermal", node.name, "full speed")
