"""What this machine is, looked at again now and then."""

import os
from collections.abc import Callable
from pathlib import Path

from tbcluster.cluster.agent.compute import probe_compute
from tbcluster.cluster.agent.errands import Errands
from tbcluster.hardware.machine import this_machine
from tbcluster.machine import Machine

CLOSE_S = 1.0


class Inspector:
    """Looks at this machine when it is told to, which takes seconds, in a thread of its own.

    Args:
        models: Where models are kept; the Hugging Face cache if not given.
        memory_bytes: The most that models may take here; None for what MLX says.
        on_seen: Called there with what was seen.
    """

    def __init__(
        self,
        models: Path | None,
        on_seen: Callable[[Machine], None],
        memory_bytes: int | None = None,
    ) -> None:
        self._models = models or model_cache()
        self._on_seen = on_seen
        self._memory_bytes = memory_bytes
        self._errands = Errands("inspection")

    def look(self) -> None:
        """Look once more."""
        self._errands.do(self._look)

    def close(self) -> None:
        """Do not wait for what is under way: it changes nothing."""
        self._errands.close(CLOSE_S)

    def _look(self) -> None:
        self._on_seen(this_machine(probe_compute(self._memory_bytes), self._models))


def model_cache() -> Path:
    """Where models of the Hugging Face hub are kept."""
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.path.expanduser(os.environ.get("HF_HUB_CACHE") or f"{home}/hub"))
