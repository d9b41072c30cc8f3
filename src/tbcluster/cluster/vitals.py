"""What the parent of a stage worker notes of it: whether it still works, and how it ended."""

import time
from collections.abc import Callable

from tbcluster.cluster.pulse import Patience, Pulse
from tbcluster.errors import StageMemoryError
from tbcluster.hardware.memory import left_bytes
from tbcluster.planner.words import amount
from tbcluster.wire.control import Failed, Loading, Report, StageSpec


class Vitals:
    """Those of one stage worker.

    Args:
        memory_left: Says how many bytes are free on this machine.
    """

    def __init__(
        self,
        spec: StageSpec,
        patience: Patience | None = None,
        memory_left: Callable[[], int] = left_bytes,
    ) -> None:
        self.pulse = Pulse(time.monotonic(), spec.step_limit_s, patience)
        self._memory_left = memory_left
        self._loading: Loading | None = None
        self._left_bytes = 0

    def heard(self, report: Report) -> None:
        """The worker has said this. While it loads, memory is looked at whenever it says something:
        once it is dead, what it held is free again."""
        self.pulse.heard(report)
        if isinstance(report, Loading):
            self._loading = report
        if self._loading is not None and not self.pulse.is_ready:
            self._left_bytes = self._memory_left()

    def describe(self, status: int) -> str:
        """How it ended, with the numbers if a signal ended it while it was loading."""
        loading = self._loading
        if status >= 0 or loading is None or self.pulse.is_ready:
            return describe_exit(status)
        return (
            f"{describe_exit(status)} while loading {amount(loading.loaded_bytes)} of "
            f"{amount(loading.total_bytes)}, with {amount(self._left_bytes)} of memory left on "
            f"the machine{': probably out of memory' if self._lacked_memory else ''}"
        )

    def failure(self, status: int) -> Failed | None:
        """What a worker would have reported that the system has most likely killed for lack of
        memory; None for all other ends."""
        if status >= 0 or self.pulse.is_ready or not self._lacked_memory:
            return None
        return Failed(StageMemoryError.__name__, self.describe(status))

    @property
    def _lacked_memory(self) -> bool:
        """Whether there was less memory left than was still to be loaded."""
        loading = self._loading
        if loading is None:
            return False
        return self._left_bytes < loading.total_bytes - loading.loaded_bytes


def describe_exit(status: int) -> str:
    """An exit status in words."""
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
