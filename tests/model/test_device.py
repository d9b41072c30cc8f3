"""How much memory models may take, where MLX computes on a CPU."""

import errno

import pytest

from tbcluster.errors import StageError
from tbcluster.model import device
from tbcluster.model.device import CPU, current_device, lacks_memory, memory_limit_bytes

pytestmark = pytest.mark.skipif(current_device().backend != CPU, reason="MLX says it here")


def test_it_does_not_shrink_because_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, held in ((1000, 0), (400, 600)):
        monkeypatch.setattr(device, "available_bytes", lambda free=free: free)
        monkeypatch.setattr(device, "held_by_children", lambda held=held: held)
        assert memory_limit_bytes() == 1000


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available_bytes", lambda: None)
    with pytest.raises(StageError, match="does not tell how much memory is free"):
        memory_limit_bytes()


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (RuntimeError("[malloc] Unable to allocate 4096 bytes."), True),
        (RuntimeError("[metal::malloc] Attempting to allocate 99 bytes which is greater"), True),
        (RuntimeError("[metal::malloc] Resource limit (499000) exceeded."), True),
        (RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory"), True),
        (RuntimeError("cudaMallocAsync failed: out of memory"), True),
        (RuntimeError("[load] Failed to open file"), False),
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOENT, "out of memory"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_is_lacking(error: Exception, is_memory: bool) -> None:
    assert lacks_memory(error) == is_memory
