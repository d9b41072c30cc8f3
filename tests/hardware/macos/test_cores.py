"""Fast cores and slow ones, however macOS counts them."""

import pytest

from tbcluster.hardware.macos.cores import Cores, cores_of_profiler, cores_of_sysctl
from tbcluster.hardware.macos.profiler import profiler_items
from tbcluster.hardware.macos.sysctl import sysctl_values
from tests.doubles.mac import recorded


def test_levels_without_names() -> None:
    values = sysctl_values(recorded("sysctl_levels_without_names.txt"))
    assert cores_of_sysctl(values) == Cores(28, 20, 8)


def test_super_cores_are_fast() -> None:
    values = sysctl_values(recorded("sysctl_super_cores.txt"))
    assert cores_of_sysctl(values) == Cores(18, 18, 0)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([("Performance", 8), ("Efficiency", 4)], Cores(14, 8, 4)),
        ([("Super", 2), ("Performance", 4), ("Efficiency", 6)], Cores(14, 6, 6)),
        ([("", 8)], Cores(14, 8, 0)),
        ([], Cores(14)),
    ],
)
def test_levels(levels: list[tuple[str, int]], expected: Cores) -> None:
    values = {"hw.ncpu": "14"}
    for number, (name, cores) in enumerate(levels):
        values[f"hw.perflevel{number}.physicalcpu"] = str(cores)
        values |= {f"hw.perflevel{number}.name": name} if name else {}
    assert cores_of_sysctl(values) == expected


def test_a_sysctl_that_does_not_say() -> None:
    assert cores_of_sysctl({}) is None
    assert cores_of_sysctl({"hw.ncpu": "<redacted>", "hw.perflevel0.physicalcpu": "4"}) is None


@pytest.mark.parametrize(
    ("fixture", "expected"),
    [
        ("hardware_three_fields.json", Cores(14, 10, 4)),
        ("hardware_four_fields.json", Cores(18, 18, 0)),
    ],
)
def test_fixtures_of_the_profiler(fixture: str, expected: Cores) -> None:
    items = profiler_items(recorded(fixture), "SPHardwareDataType")
    assert items is not None
    assert cores_of_profiler(items[0]["number_processors"]) == expected


@pytest.mark.parametrize(
    ("number_processors", "expected"),
    [
        ("proc 8:4:4", Cores(8, 4, 4)),
        ("proc 24:16:8:0", Cores(24, 16, 8)),
        ("proc 12:0:8:4", Cores(12, 8, 4)),
        ("proc 18:6:0:12", Cores(18, 18, 0)),
        ("proc 12:2:4:6", Cores(12)),  # three kinds in an order nobody has seen
        ("proc 8", Cores(8)),
        ("proc 8:8", Cores(8)),
        ("proc 8:", None),
        ("proc x:4:4", None),
        ("8:4:4", None),
        ("", None),
        (8, None),
        (None, None),
    ],
)
def test_number_processors(number_processors: object, expected: Cores | None) -> None:
    assert cores_of_profiler(number_processors) == expected
