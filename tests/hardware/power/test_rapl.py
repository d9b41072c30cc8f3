"""Linux's counters of joules, in a folder of our own."""

from pathlib import Path

import pytest

from tbcluster.hardware.power.meter import Reading
from tbcluster.hardware.power.rapl import open_rapl
from tests.hardware.power.test_meter import Clock

RANGE_UJ = 262_143_328_850


def write_domain(root: Path, folder: str, name: str, energy_uj: int) -> Path:
    path = root / "sys/class/powercap" / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return path


def test_packages_and_memory_are_added_up_and_parts_of_them_are_not(tmp_path: Path) -> None:
    clock = Clock()
    package = write_domain(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    cores = write_domain(tmp_path, "intel-rapl:0:0", "core", 0)
    memory = write_domain(tmp_path, "intel-rapl:0:1", "dram", 0)
    whole = write_domain(tmp_path, "intel-rapl:1", "psys", 0)
    again = write_domain(tmp_path, "intel-rapl-mmio:0", "package-0", 0)
    rapl = open_rapl(tmp_path, clock)
    assert rapl is not None
    assert rapl.read() == Reading(0.0, None)
    for path in (cores, whole, again):
        (path / "energy_uj").write_text("900000000\n")
    (package / "energy_uj").write_text("21000000\n")
    (memory / "energy_uj").write_text("4000000\n")
    clock.now += 2
    assert rapl.read() == Reading(24.0, 12.0)


def test_a_counter_that_wrapped_goes_on(tmp_path: Path) -> None:
    path = write_domain(tmp_path, "intel-rapl:0", "package-0", RANGE_UJ - 3_000_000)
    rapl = open_rapl(tmp_path, Clock())
    assert rapl is not None
    (path / "energy_uj").write_text("2000000\n")
    assert rapl.read().joules == pytest.approx(5.0)


def test_a_counter_that_can_be_read_no_more_says_nothing(tmp_path: Path) -> None:
    path = write_domain(tmp_path, "intel-rapl:0", "package-0", 5)
    rapl = open_rapl(tmp_path)
    assert rapl is not None
    (path / "energy_uj").unlink()
    assert rapl.read() == Reading()


@pytest.mark.parametrize("content", [None, "", "-1", "many"])
def test_where_a_counter_may_not_be_read_there_is_no_meter(
    tmp_path: Path, content: str | None
) -> None:
    assert open_rapl(tmp_path) is None
    path = write_domain(tmp_path, "intel-rapl:0", "package-0", 5)
    if content is None:
        (path / "energy_uj").unlink()
    else:
        (path / "energy_uj").write_text(content)
    assert open_rapl(tmp_path) is None
