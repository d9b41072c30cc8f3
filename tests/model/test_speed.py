"""What measures speed, on a clock and with sizes of the test's own: the figures are a machine's."""

import itertools

import mlx.core as mx
import pytest

from tbcluster.errors import StageError
from tbcluster.model import speed
from tbcluster.model.device import Device, current_device
from tbcluster.model.speed import ROWS, Matrix, byte_rates, cache_rate, clock_of, mean_s, toy_stage

DEVICE = current_device()
ON_GPU = Device("Metal GPU", None)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices that take no time."""
    for name in ("CPU_WIDTH", "GPU_WIDTH"):
        monkeypatch.setattr(speed, name, 128)
    for name in ("CPU_BYTES", "GPU_BYTES"):
        monkeypatch.setattr(speed, name, 1 << 18)
    monkeypatch.setattr(speed, "SAMPLE_S", 1e-4)
    monkeypatch.setattr(speed, "NUM_SAMPLES", 1)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "4-bit/64", "8-bit/32 64", "mxfp4"])
def test_all_kinds_are_measured(kind: str) -> None:
    rates = byte_rates(kind, DEVICE)
    assert tuple(rows for rows, _ in rates) == ROWS
    assert all(byte_s > 0 for _, byte_s in rates)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["", "float8", "4-bit/48", "9-bit/64", "1-bit/64"])
def test_a_kind_that_there_is_not(kind: str) -> None:
    with pytest.raises(StageError, match="no speed can be measured with weights of kind"):
        byte_rates(kind, DEVICE)


@pytest.mark.usefixtures("small")
def test_rows_that_would_take_too_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rate, asked = 1e-6, []

    def rate_of(matrices: list[Matrix], rows: int, *_: object) -> float:
        asked.append(rows)
        return rate * rows

    monkeypatch.setattr(speed, "_rate", rate_of)
    # A matrix of 64 KiB takes 0.066 s for each row.
    assert byte_rates("float32", DEVICE) == ((1, 1e-6), (2, 2e-6))
    assert asked == [1, 2]


@pytest.mark.parametrize(
    ("kind", "num_bytes"),
    [("float32", 4), ("4-bit/64", 0.625), ("8-bit/32", 1.25), ("mxfp4", 0.53125)],
)
def test_bytes_are_those_that_are_read(kind: str, num_bytes: float) -> None:
    matrix = speed._matrix(kind, 128, 256, mx.float32)
    assert matrix.nbytes == num_bytes * 128 * 256
    assert matrix.multiply(mx.ones((3, 256))).shape == (3, 128)


def test_there_are_more_matrices_than_caches_hold() -> None:
    matrices = list(speed._matrices("float16", None, DEVICE, mx.float32))
    assert sum(matrix.nbytes for matrix in matrices) >= speed.CPU_BYTES


@pytest.mark.parametrize(
    ("kind", "wanted", "used"),
    [("float32", 448, 448), ("4-bit/64", 448, 512), ("mxfp4", 7168, 2048), ("float32", None, 1024)],
)
def test_matrices_are_as_wide_as_the_model_is(kind: str, wanted: int | None, used: int) -> None:
    matrix = next(speed._matrices(kind, wanted, Device("CPU", mx.float32), mx.float32))
    assert matrix.width == used


def test_the_mean_of_a_sample_and_the_shortest_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SAMPLE_S", 0.08)
    # Each call takes so long: the first is not counted, the second sample is disturbed.
    durations = itertools.chain([9.0], [0.05] * 2, [0.5], itertools.repeat(0.04))
    now = 0.0

    def run() -> None:
        nonlocal now
        now += next(durations)

    assert mean_s(run, lambda: now) == pytest.approx(0.04)


def test_on_a_cpu_time_is_the_process_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed.time, "process_time", lambda: 3.0)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: 10.0)
    cpu = Device("CPU", mx.float32)
    for limit, now in ((None, 3.0), (4.0, 3.0), (0.25, 12.0)):
        monkeypatch.setattr(speed, "cpu_limit", lambda limit=limit: limit)
        assert clock_of(cpu)() == now
        assert clock_of(ON_GPU)() == 10.0


def test_reading_a_cache_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SAMPLE_S", 0.01)
    assert 0 < cache_rate(DEVICE) < 1e-6


def test_a_toy_has_its_layers_and_hardly_any_weights() -> None:
    model, layer_bytes = toy_stage(3, DEVICE)
    assert len(model.make_cache()) == 3
    assert 0 < layer_bytes < 1 << 18
