"""What MLX computes on here, and in which type."""

import errno
import re
from dataclasses import dataclass
from importlib.metadata import version

import mlx.core as mx

from tbcluster.errors import StageError
from tbcluster.hardware.memory import available_bytes, held_by_children
from tbcluster.machine import Compute

CPU = "CPU"

# From MLX's allocators and, on Metal, from the system.
_OUT_OF_MEMORY = re.compile(
    r"unable to allocate|attempting to allocate|malloc\] resource limit|out of memory|insufficient "
    "memory",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Device:
    """The backend, and the type to compute in (None: the checkpoint's own).

    MLX's CPU backend accumulates quantized matmuls in the input's type (errors of up to 10 % in
    bfloat16), is 10 to 20 times slower there than in float32, and has no mixture-of-experts matmul
    for other types: on a CPU everything runs in float32.
    """

    backend: str
    compute_dtype: mx.Dtype | None

    @property
    def note(self) -> str | None:
        """A line for the user where the compute type is not the checkpoint's."""
        if self.compute_dtype is None:
            return None
        return f"computing in float32: MLX runs on the {self.backend} here"


def current_device() -> Device:
    """The device this process computes on."""
    if mx.metal.is_available():
        return Device("Metal GPU", None)
    if mx.default_device() == mx.Device(mx.gpu):
        return Device("CUDA GPU", None)
    return Device(CPU, mx.float32)


def prepare_device() -> Device:
    """Set MLX up for a process that computes, and say on what it does.

    On Metal MLX may wire as much memory as the system recommends, as with mlx-lm. On a CPU
    functions are not compiled: that needs a C++ compiler on the user's machine, takes a second at
    the first use of each, and was not faster where it was measured.
    """
    device = current_device()
    if mx.metal.is_available():
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
    elif device.backend == CPU:
        mx.disable_compile()
    return device


def compute_here() -> Compute:
    """What MLX says of this machine.

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


def memory_limit_bytes() -> int:
    """Memory that models on this machine should stay within, weights and caches together. What this
    process's own workers hold already is part of it: it does not shrink because a model is loaded.

    Raises:
        StageError: This system does not say.
    """
    if mx.metal.is_available():
        return int(mx.device_info()["max_recommended_working_set_size"])
    if mx.default_device() == mx.Device(mx.gpu):
        return int(mx.device_info()["total_memory"])
    available = available_bytes()
    if available is None:
        raise StageError("this system does not tell how much memory is free: set --kv-memory")
    return available + held_by_children()


def lacks_memory(error: BaseException) -> bool:
    """Whether this says that memory could not be had. MLX tells so in words alone."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))
    )


def peak_memory_bytes() -> int:
    """The most memory MLX has held in this process."""
    return int(mx.get_peak_memory())
