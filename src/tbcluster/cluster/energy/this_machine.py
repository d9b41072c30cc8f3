"""This machine as if it were a node, where there is no rack."""

import logging
import threading
import time
from collections.abc import Callable

from tbcluster.cluster.agent.inspection import model_cache
from tbcluster.cluster.opening import THIS_MACHINE
from tbcluster.hardware.gauges import GaugeReader
from tbcluster.hardware.machine import described_briefly, this_machine
from tbcluster.hardware.power.opening import open_lasting_meter
from tbcluster.machine import Gauges, Machine, NodeState, NodeView

logger = logging.getLogger(__name__)


class ThisMachine:
    """What it is, and what its gauges say. `look` and `close` are for one thread.

    Args:
        describe: Looks at it, which takes seconds on a Mac.
    """

    def __init__(
        self,
        open_reader: Callable[[], GaugeReader] = lambda: GaugeReader(open_lasting_meter()),
        describe: Callable[[], Machine] = lambda: this_machine(None, model_cache()),
    ) -> None:
        self._open_reader = open_reader
        self._describe = describe
        self._reader: GaugeReader | None = None
        self.machine = described_briefly(model_cache())
        self.gauges = Gauges(at=time.time())

    def look(self) -> None:
        """Read the gauges; the first time, open them and begin to look at the machine."""
        if self._reader is None:
            self._reader = self._open_reader()
            threading.Thread(target=self._see, name="this-machine", daemon=True).start()
        self.gauges = self._reader.read()

    def nodes(self) -> list[NodeView]:
        """It alone, as it was seen last."""
        return [
            NodeView(
                node_id="",
                name=THIS_MACHINE,
                state=NodeState.ONLINE,
                is_head=True,
                machine=self.machine,
                gauges=self.gauges,
            )
        ]

    def state(self) -> tuple[Machine, Gauges]:
        """As far as it was seen so far."""
        return self.machine, self.gauges

    def close(self) -> None:
        """Give up the meter."""
        if self._reader is not None:
            self._reader.close()

    def _see(self) -> None:
        try:
            self.machine = self._describe()
        except Exception:  # it serves all the same
            logger.exception("this machine could not be looked at")
