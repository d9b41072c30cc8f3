"""What MLX says of this machine, asked of a process of its own: MLX stays out of the agent."""

import logging
import sys
from dataclasses import replace

import msgspec

from tbcluster.hardware.commands import run_tool
from tbcluster.hardware.memory import held_by_children
from tbcluster.machine import Compute

logger = logging.getLogger(__name__)

# MLX's first start on a machine compiles its kernels.
PROBE_S = 60.0
# Where MLX computes, by its own name, if a model takes what others leave.
CPU = "CPU"


def probe_compute(memory_bytes: int | None = None) -> Compute | None:
    """Memory, device and versions; None, with a line in the log, where MLX does not run.

    Args:
        memory_bytes: The most that models may take here; None for what MLX says.
    """
    output = run_tool([sys.executable, "-P", "-m", "tbcluster.stage.probe"], PROBE_S)
    if output.problem is not None:
        logger.warning("MLX does not say what it can use: %s", output.problem)
        return None
    try:
        compute = msgspec.json.decode(output.text, type=Compute)
    except msgspec.DecodeError as error:
        logger.warning("what MLX's probe printed is not understood: %s", error)
        return None
    working_set = compute.working_set_bytes
    if compute.backend == CPU:
        # What this agent's own workers hold is not gone: it is what models take.
        working_set += held_by_children()
    if memory_bytes is not None:
        working_set = min(working_set, memory_bytes)
    return replace(compute, working_set_bytes=working_set)
