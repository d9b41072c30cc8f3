"""What MLX says of this machine, asked of a process of its own: MLX stays out of the agent."""

import logging
import sys

import msgspec

from tbcluster.hardware.commands import run_tool
from tbcluster.machine import Compute

logger = logging.getLogger(__name__)

# MLX's first start on a machine compiles its kernels.
PROBE_S = 60.0


def probe_compute() -> Compute | None:
    """Memory, device and versions; None, with a line in the log, where MLX does not run."""
    output = run_tool([sys.executable, "-P", "-m", "tbcluster.stage.probe"], PROBE_S)
    if output.problem is not None:
        logger.warning("MLX does not say what it can use: %s", output.problem)
        return None
    try:
        return msgspec.json.decode(output.text, type=Compute)
    except msgspec.DecodeError as error:
        logger.warning("what MLX's probe printed is not understood: %s", error)
        return None
