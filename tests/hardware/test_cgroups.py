"""The limits of control groups, in files of the test's own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.hardware.cgroups import _own_group, cpu_limit, memory_room

MEMBERSHIP = """\
9:name=systemd:/
4:memory:/pods/one
2:cpu,cpuacct:/pods/one
0::/pods/one
"""
NO_LIMIT_V1 = "9223372036854771712\n"


class System:
    """A machine with nothing in it yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/self/cgroup", MEMBERSHIP)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def group(self, folder: str, **files: str) -> None:
        """A group's files; `__` in a name is a dot."""
        for name, text in files.items():
            self.write(f"sys/fs/cgroup/{folder}/{name.replace('__', '.')}", text)

    def memory(self, limit: str, used: str, stat: str = "", folder: str = "") -> None:
        self.group(folder, memory__max=limit, memory__current=used, memory__stat=stat)

    def memory_v1(self, limit: str, used: str, stat: str = "", folder: str = "") -> None:
        files = {"memory__limit_in_bytes": limit, "memory__usage_in_bytes": used}
        self.group(f"memory/{folder}", **files, memory__stat=stat)


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_a_machine_without_groups_has_no_limits(tmp_path: Path) -> None:
    assert memory_room(tmp_path) is None
    assert cpu_limit(tmp_path) is None


@pytest.mark.parametrize(
    ("limit", "used", "room"),
    [
        ("1000\n", "400\n", 600),
        ("1000\n", "4000\n", 0),  # over its limit for the moment
        ("max\n", "400\n", None),
        ("", "", None),
        ("1000\n", "some\n", None),
        ("1000 2000\n", "1\n", None),
    ],
)
def test_memory(system: System, limit: str, used: str, room: int | None) -> None:
    system.memory(limit, used)
    assert memory_room(system.root) == room


def test_memory_of_version_1(system: System) -> None:
    system.memory_v1(NO_LIMIT_V1, "5\n")
    assert memory_room(system.root) is None
    system.memory_v1("1000\n", "700\n", folder="pods/one")
    assert memory_room(system.root) == 300


def test_every_group_above_counts(system: System) -> None:
    system.memory("5000\n", "1000\n", folder="pods/one")
    assert memory_room(system.root) == 4000
    system.memory("2000\n", "1500\n", folder="pods")
    assert memory_room(system.root) == 500
    system.memory("max\n", "90000\n")
    assert memory_room(system.root) == 500
    system.memory_v1("8000\n", "7900\n")
    assert memory_room(system.root) == 100


def test_groups_beside_ones_own_do_not(system: System) -> None:
    system.memory("1000\n", "999\n", folder="pods/two")
    system.memory_v1("1000\n", "999\n", folder="pods/two")
    assert memory_room(system.root) is None


@pytest.mark.parametrize(
    ("stat", "room"),
    [
        ("anon 70\ninactive_file 300\nactive_file 20\n", 900),
        ("anon 70\n", 600),
        ("some_inactive_file 300\n", 600),
        ("inactive_file 9000\n", 9600),
    ],
)
def test_files_that_were_read_are_given_back(system: System, stat: str, room: int) -> None:
    system.memory("1000\n", "400\n", stat)
    assert memory_room(system.root) == room


def test_in_version_1_files_of_groups_below_count_too(system: System) -> None:
    system.memory_v1("1000\n", "400\n", "inactive_file 5\ntotal_inactive_file 200\n")
    assert memory_room(system.root) == 800


@pytest.mark.parametrize(
    ("text", "limit"),
    [("33333 100000\n", 0.33333), ("250000 100000\n", 2.5), ("max 100000\n", None), ("", None)],
)
def test_processors(system: System, text: str, limit: float | None) -> None:
    system.group("", cpu__max=text)
    assert cpu_limit(system.root) == limit


def test_processors_of_version_1(system: System) -> None:
    system.group("cpu", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert cpu_limit(system.root) is None
    system.group("cpu/pods/one", cpu__cfs_quota_us="3000\n", cpu__cfs_period_us="10000\n")
    assert cpu_limit(system.root) == pytest.approx(0.3)
    system.group("cpu/pods", cpu__cfs_quota_us="2000\n", cpu__cfs_period_us="10000\n")
    assert cpu_limit(system.root) == pytest.approx(0.2)


def test_in_a_container_the_root_is_its_own_group(system: System) -> None:
    """The name is that of the group outside, or leads out of what can be seen."""
    system.write("proc/self/cgroup", "0::/../../elsewhere\n")
    system.memory("1000\n", "100\n")
    assert memory_room(system.root) == 900


@given(st.text() | st.from_regex(r"(\d*:[a-z,]*:[/a-z.]*\n)*", fullmatch=True))
def test_any_list_of_groups_leads_to_an_absolute_path(text: str) -> None:
    for controller in ("", "cpu", "memory"):
        assert _own_group(text, controller).is_absolute()
