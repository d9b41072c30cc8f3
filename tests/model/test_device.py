"""How much memory models may take, where MLX computes on a CPU."""

import pytest

from tbcluster.errors import StageError
from tbcluster.model import device
from tbcluster.model.device import CPU, current_device, memory_limit_bytes

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
