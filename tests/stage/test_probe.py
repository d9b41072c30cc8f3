"""What MLX says of this machine, asked as the agent asks."""

import subprocess
import sys
from importlib.metadata import version

import mlx.core as mx
import msgspec

from tbcluster.machine import Compute
from tbcluster.model.device import current_device


def test_one_line_of_json() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tbcluster.stage.probe"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.count(b"\n") == 1
    compute = msgspec.json.decode(done.stdout, type=Compute)
    assert compute.backend == current_device().backend
    assert compute.device == mx.device_info()["device_name"]
    assert compute.working_set_bytes > 0
    assert (compute.mlx_version, compute.mlx_lm_version) == (version("mlx"), version("mlx-lm"))
    limit = mx.device_info().get("max_buffer_length")
    assert compute.max_buffer_bytes == limit
