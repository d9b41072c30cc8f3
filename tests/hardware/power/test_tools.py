"""macmon and nvidia-smi: their lines, and programs that print such lines in their place."""

import math
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tbcluster.hardware.power.macmon import MacmonLine, open_macmon, parse_macmon
from tbcluster.hardware.power.meter import MAX_GAP_S, Meter, Reading
from tbcluster.hardware.power.nvidia import open_nvidia, parse_gpu
from tbcluster.hardware.power.opening import open_meter
from tests.doubles.waiting import wait_until
from tests.hardware.power.test_meter import Clock
from tests.hardware.power.test_rapl import write_domain

LINES = Path(__file__).parents[2] / "fixtures" / "power"


def write_tool(path: Path, name: str, lines: str) -> Callable[[str], str | None]:
    """A program that prints these lines and goes on running until it is ended."""
    tool = path / name
    tool.write_text(
        f"#!{sys.executable}\nimport signal, sys\n"
        f"sys.stdout.write({lines!r})\nsys.stdout.flush()\nsignal.pause()\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return lambda wanted: str(tool) if wanted == name else None


def watts_of(meter: Meter) -> float | None:
    wait_until(lambda: meter.read().watts is not None, "the tool has said something")
    return meter.read().watts


@pytest.mark.parametrize(
    ("file", "watts", "temperature_c"),
    [
        ("macmon_0.8.0_m1max.json", 18.952476501464844, 55.03165054321289),
        ("macmon_0.8.2_readme.json", 5.876533, 43.73614),
    ],
)
def test_a_recorded_line_of_macmon(file: str, watts: float, temperature_c: float) -> None:
    assert parse_macmon((LINES / file).read_text()) == MacmonLine(watts, temperature_c)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"sys_power": 0.0, "all_power": 2.0, "ram_power": 0.5}', MacmonLine(2.5, None)),
        ('{"all_power": 2.0, "temp": {"cpu_temp_avg": 0.0}}', MacmonLine(2.0, None)),
        ('{"temp": {"gpu_temp_avg": 41}}', MacmonLine(None, 41.0)),
        ('{"sys_power": true, "temp": 5}', MacmonLine(None, None)),
        ("[]", None),
        ("macmon: no such option", None),
    ],
)
def test_other_lines_of_macmon(line: str, said: MacmonLine | None) -> None:
    assert parse_macmon(line) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0, 75.32, 31", (0, 75.32, 31.0)),
        ("1, [N/A], 31", None),
        ("NVIDIA-SMI has failed because it couldn't communicate", None),
        ("", None),
    ],
)
def test_lines_of_nvidia_smi(line: str, said: tuple[int, float, float] | None) -> None:
    assert parse_gpu(line) == said


def test_a_gpu_without_degrees_still_has_watts() -> None:
    found = parse_gpu("2, 60.00, [N/A]")
    assert found is not None
    assert found[:2] == (2, 60.0)
    assert math.isnan(found[2])


def test_macmon_is_watched_while_it_runs(tmp_path: Path) -> None:
    line = (LINES / "macmon_0.8.2_readme.json").read_text().strip() + "\n"
    meter = open_macmon(write_tool(tmp_path, "macmon", f"garbage\n{line}"))
    assert meter is not None
    try:
        assert watts_of(meter) == 5.876533
        assert meter.read().temperature_c == 43.73614
        assert meter.source == "macmon"
    finally:
        meter.close()


def test_all_gpus_are_added_up(tmp_path: Path) -> None:
    meter = open_nvidia(write_tool(tmp_path, "nvidia-smi", "0, 70.0, 31\n1, 90.5, 64\n"))
    assert meter is not None
    try:
        wait_until(lambda: meter.read().watts == 160.5, "both GPUs have said something")
        assert meter.read().temperature_c == 64.0
    finally:
        meter.close()


def test_a_tool_that_cannot_be_started_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "macmon"
    broken.write_text("no program")
    assert open_macmon(lambda _: str(broken)) is None
    assert open_nvidia(lambda _: str(broken)) is None


def test_a_tool_that_ends_at_once_says_nothing(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0, 20.0, 30\necho Failed to initialize NVML\nexit 9\n")
    tool.chmod(0o755)
    clock = Clock()
    meter = open_nvidia(lambda _: str(tool), clock)
    assert meter is not None
    try:
        wait_until(lambda: meter.read().watts == 20.0, "its only line was read")
        wait_until(lambda: not meter._tool._thread.is_alive(), "it has ended")
        clock.now += MAX_GAP_S + 1
        assert meter.read() == Reading()
    finally:
        meter.close()


def test_linux_takes_all_that_it_has(tmp_path: Path) -> None:
    def nothing(_: str) -> None:
        return None

    assert open_meter(tmp_path, "linux", nothing) is None
    write_domain(tmp_path, "intel-rapl:0", "package-0", 5)
    alone = open_meter(tmp_path, "linux", nothing)
    assert alone is not None
    assert alone.source == "rapl"
    both = open_meter(tmp_path, "linux", write_tool(tmp_path, "nvidia-smi", "0, 1.0, 30\n"))
    assert both is not None
    both.close()
    assert both.source == "rapl+nvml"


def test_a_mac_without_its_package_asks_macmon(tmp_path: Path) -> None:
    meter = open_meter(tmp_path, "darwin", write_tool(tmp_path, "macmon", "{}\n"))
    assert meter is not None
    meter.close()
    # Where the package is installed it comes first.
    assert meter.source in ("macmon", "zeus")
