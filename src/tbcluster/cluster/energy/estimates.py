"""What a node without a meter is taken to draw: by its chip's published figures."""

import logging

from tbcluster.cluster.energy.node_count import ESTIMATE, NodeEnergy
from tbcluster.cluster.plan_rack import chip_by_name, chip_power
from tbcluster.errors import TbclusterError
from tbcluster.machine import Machine, NodeView
from tbcluster.planner.nodes import NodePower

logger = logging.getLogger(__name__)


class Estimates:
    """Chips' figures, looked up once for each kind of machine."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, int], NodePower | None] = {}

    def energy(self, node: NodeView, busy: float) -> NodeEnergy:
        """What a node's meter says, else what its chip is taken to draw while it computes for this
        share of the time, 0 to 1; nothing where its chip is not known."""
        gauges = node.gauges
        if gauges is not None and gauges.joules is not None:
            return NodeEnergy(gauges.joules, gauges.watts, gauges.power_source or "meter")
        power = self._power(node.machine)
        if power is None:
            return NodeEnergy()
        watts = power.idle_w + min(1.0, busy) * (power.decode_w - power.idle_w)
        return NodeEnergy(None, watts, ESTIMATE)

    def _power(self, machine: Machine | None) -> NodePower | None:
        if machine is None:
            return None
        kind = machine.chip, machine.memory_bytes
        if kind not in self._known:
            self._known[kind] = _looked_up(machine)
        return self._known[kind]


def _looked_up(machine: Machine) -> NodePower | None:
    try:
        return chip_power(chip_by_name(machine))
    except TbclusterError as error:  # of the user's own list of chips
        logger.warning("what %s draws is not known: %s", machine.hostname, error)
        return None
