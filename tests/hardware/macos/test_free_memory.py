"""How much memory is left on a Mac."""

import pytest

from tbcluster.hardware.macos.free_memory import available_by_pages, available_by_pressure
from tests.doubles.mac import recorded


def test_by_pressure() -> None:
    # 75 % of 48 GiB.
    assert available_by_pressure(recorded("memory_pressure.txt")) == 36 << 30


def test_by_pages() -> None:
    assert available_by_pages(recorded("vm_stat.txt")) == (10_000 + 200_000 + 5_000) * 16384


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The system has 51539607552 (3145728 pages with a page size of 16384).\n",
        "System-wide memory free percentage: 75%\n",
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages inactive: 5.\n",
        "Pages free: 10000.\n",
    ],
)
def test_what_is_not_told(text: str) -> None:
    assert available_by_pressure(text) is None
    assert available_by_pages(text) is None
