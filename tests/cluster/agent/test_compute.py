"""What models may take, from what MLX's probe prints."""

import json
from dataclasses import asdict

import pytest

from tbcluster.cluster.agent import compute as module
from tbcluster.cluster.agent.compute import probe_compute
from tbcluster.hardware.commands import Output
from tbcluster.machine import Compute

HELD_BYTES = 500


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Output]:
    """What the probe prints; this agent's workers hold some memory."""
    said = {}
    monkeypatch.setattr(module, "run_tool", lambda *_: said["probe"])
    monkeypatch.setattr(module, "held_by_children", lambda: HELD_BYTES)
    return said


def compute(backend: str, working_set_bytes: int = 1000) -> Compute:
    return Compute(backend, "a device", working_set_bytes, None, "1", "2")


@pytest.mark.parametrize(
    ("backend", "limit", "expected"),
    [
        ("Metal GPU", None, 1000),
        ("CUDA GPU", None, 1000),
        # Free memory: what workers hold was taken off, and is what models take.
        ("CPU", None, 1000 + HELD_BYTES),
        ("Metal GPU", 300, 300),
        ("CPU", 1200, 1200),
        ("Metal GPU", 5000, 1000),
    ],
)
def test_memory_for_models(
    printed: dict[str, Output], backend: str, limit: int | None, expected: int
) -> None:
    printed["probe"] = Output(json.dumps(asdict(compute(backend))))
    assert probe_compute(limit) == compute(backend, expected)


@pytest.mark.parametrize(
    "output", [Output("", "python: exit status 1"), Output("{"), Output('{"backend": 5}')]
)
def test_a_probe_that_fails_says_why(
    printed: dict[str, Output], output: Output, caplog: pytest.LogCaptureFixture
) -> None:
    printed["probe"] = output
    assert probe_compute(300) is None
    assert "MLX" in caplog.text


def test_the_real_probe_within_a_limit() -> None:
    seen = probe_compute(1 << 20)
    assert seen is not None
    assert seen.working_set_bytes == 1 << 20
