"""Free memory as Linux tells it, in files of the test's own."""

from pathlib import Path

import pytest

from tbcluster.hardware.memory import available_bytes

MEMINFO = """\
MemTotal:       132000000 kB
MemFree:         1000000 kB
MemAvailable:    2000000 kB
Buffers:          300000 kB
"""
FREE = 2_000_000 * 1024
STAT = """\
anon 70
file 50
inactive_anon 30
inactive_file 0
active_file 20
"""


class System:
    """What a machine says of itself; at first nothing."""

    def __init__(self, folder: Path) -> None:
        self.meminfo = folder / "meminfo"
        self.cgroup = folder / "cgroup"
        self.cgroup.mkdir()

    def available(self) -> int | None:
        return available_bytes(self.meminfo, self.cgroup)

    def limit(self, most: str | None, current: str | None, stat: str | None = STAT) -> None:
        files = {"memory.max": most, "memory.current": current, "memory.stat": stat}
        for name, text in files.items():
            if text is not None:
                (self.cgroup / name).write_text(text)


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_a_system_that_does_not_say(system: System) -> None:
    assert system.available() is None
    system.cgroup.rmdir()
    assert system.available() is None


def test_what_the_kernel_could_free_counts(system: System) -> None:
    system.meminfo.write_text(MEMINFO)
    assert system.available() == FREE


@pytest.mark.parametrize(
    "meminfo", ["", "MemTotal: 12 kB\n", "SomeMemAvailable: 12 kB\n"], ids=["empty", "old", "other"]
)
def test_an_old_kernel_does_not_say(system: System, meminfo: str) -> None:
    system.meminfo.write_text(meminfo)
    assert system.available() is None
    system.limit("1000\n", "400\n")
    assert system.available() == 600


@pytest.mark.parametrize(
    ("most", "current", "expected"),
    [
        ("1000000\n", "400000\n", 600_000),
        ("4000000000\n", "1000\n", FREE),  # a limit past what is free
        ("max\n", "400000\n", FREE),
        ("1000\n", "4000\n", 0),  # over its limit for the moment
        ("1000\n", "1000\n", 0),
        ("1000\n", None, FREE),
        (None, "1000\n", FREE),
        ("", "", FREE),
        ("1000\n", "some\n", FREE),
        ("some\n", "1000\n", FREE),
        ("1000 2000\n", "1000\n", FREE),
    ],
)
def test_a_containers_limit_counts_where_there_is_one(
    system: System, most: str | None, current: str | None, expected: int
) -> None:
    system.meminfo.write_text(MEMINFO)
    system.limit(most, current)
    assert system.available() == expected


@pytest.mark.parametrize(
    ("most", "current", "inactive", "expected"),
    [
        ("1000\n", "400\n", 300, 900),
        ("1000\n", "1000\n", 300, 300),  # all that is left was read from files
        ("1000\n", "1400\n", 300, 0),
        ("max\n", "400\n", 300, FREE),
        ("4000000000\n", "1000\n", 1000, FREE),
    ],
)
def test_files_that_were_read_are_given_back(
    system: System, most: str, current: str, inactive: int, expected: int
) -> None:
    system.meminfo.write_text(MEMINFO)
    system.limit(most, current, STAT.replace("inactive_file 0", f"inactive_file {inactive}"))
    assert system.available() == expected


@pytest.mark.parametrize("stat", ["", "anon 70\n", "total_inactive_file 300\n"])
def test_a_container_that_names_no_files(system: System, stat: str) -> None:
    system.limit("1000\n", "400\n", stat)
    assert system.available() == 600


@pytest.mark.parametrize("most", ["", "some\n", "-\n", "0x10\n"])
def test_a_limit_that_is_no_number_is_none(system: System, most: str) -> None:
    system.limit(most, "400\n")
    assert system.available() is None


def test_a_container_alone(system: System) -> None:
    system.limit("max\n", "5\n")
    assert system.available() is None
    system.limit("1000\n", "5\n")
    assert system.available() == 995


def test_this_machine_says_something_sensible_or_nothing() -> None:
    available = available_bytes()
    assert available is None or 0 <= available < 1 << 50
