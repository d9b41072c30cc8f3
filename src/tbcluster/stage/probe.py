"""What MLX says of this machine: a process of its own, so that the agent never loads MLX.

Prints one line of JSON, the fields of `Compute`.
"""

import json
import sys
from dataclasses import asdict
from importlib.metadata import version

import mlx.core as mx

from tbcluster.errors import StageError
from tbcluster.machine import Compute
from tbcluster.model.device import current_device, memory_limit_bytes


def probe() -> Compute:
    """Ask MLX.

    Raises:
        StageError: This system does not say how much memory there is.
    """
    info = mx.device_info()
    max_buffer = info.get("max_buffer_length")
    return Compute(
        backend=current_device().backend,
        device=str(info.get("device_name", "unknown")),
        working_set_bytes=memory_limit_bytes(),
        max_buffer_bytes=None if max_buffer is None else int(max_buffer),
        mlx_version=version("mlx"),
        mlx_lm_version=version("mlx-lm"),
    )


def main() -> int:
    """Print it; the status is 1, with a line on standard error, where that cannot be done."""
    try:
        compute = probe()
    except StageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(compute)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
