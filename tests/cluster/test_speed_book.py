"""Speeds that were measured, from one run to the next."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tbcluster.cluster.speed_book import NAME, SpeedBook, described
from tbcluster.machine import Machine, NodeState, NodeView
from tbcluster.planner.nodes import NodeSpeed, SpeedSource
from tbcluster.wire.errands import MeasuredSpeed
from tests.doubles.racks import MAC

KIND = "float16"


def node(name: str = "one", machine: Machine | None = MAC) -> NodeView:
    return NodeView(name, name, NodeState.ONLINE, machine=machine)


def speed(byte_s: float, kind: str = KIND) -> MeasuredSpeed:
    return MeasuredSpeed(kind, ((1, byte_s), (8, 2 * byte_s)), 1e-4, 2e-4, 3e-12)


def with_mlx(version: str) -> Machine:
    assert MAC.compute is not None
    return replace(MAC, compute=replace(MAC.compute, mlx_version=version))


@pytest.fixture
def book(tmp_path: Path) -> SpeedBook:
    return SpeedBook(tmp_path / "state")


def test_what_was_measured_is_found_again(book: SpeedBook, tmp_path: Path) -> None:
    assert book.find([node()], KIND) == {}
    book.record("one", MAC, [speed(1e-12), speed(2e-12, "4-bit/64")])
    book.record("two", MAC, [speed(3e-12)])
    found = SpeedBook(tmp_path / "state").find([node(), node("two"), node("three")], KIND)
    assert found == {
        "one": NodeSpeed(((1, 1e-12), (8, 2e-12)), 1e-4, 2e-4, 3e-12, SpeedSource.MEASURED),
        "two": NodeSpeed(((1, 3e-12), (8, 6e-12)), 1e-4, 2e-4, 3e-12, SpeedSource.MEASURED),
    }
    assert book.find([node()], "4-bit/64")["one"].rates[0] == (1, 2e-12)


def test_a_new_measurement_replaces_the_old_one(book: SpeedBook) -> None:
    book.record("one", MAC, [speed(1e-12)])
    book.record("one", MAC, [speed(2e-12)])
    assert book.find([node()], KIND)["one"].rates[0] == (1, 2e-12)


@pytest.mark.parametrize(
    "changed",
    [
        with_mlx("99.0"),
        replace(MAC, cpu_limit=0.5),
        replace(MAC, num_cores=99),
        replace(MAC, compute=None),
        None,
    ],
)
def test_a_machine_that_has_changed_is_not_known(book: SpeedBook, changed: Machine | None) -> None:
    book.record("one", MAC, [speed(1e-12)])
    assert book.find([node(machine=changed)], KIND) == {}
    assert book.find([node(machine=replace(MAC, available_bytes=5))], KIND) != {}


def test_what_a_speed_depends_on_in_words() -> None:
    limited = replace(with_mlx("0.32.4"), cpu_limit=1.5, num_cores=8)
    assert described(limited).endswith("; mlx 0.32.4; 1.5 of 8 cores")


@pytest.mark.parametrize("content", [b"", b"{", b'[{"node_id": 5}]', b"[" * 100_000, b"\xff"])
def test_a_damaged_file_holds_nothing_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    (tmp_path / NAME).chmod(0o600)
    book = SpeedBook(tmp_path)
    assert book.find([node()], KIND) == {}
    book.record("one", MAC, [speed(1e-12)])
    assert "one" in book.find([node()], KIND)


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    SpeedBook(tmp_path / "file").record("one", MAC, [speed(1e-12)])
    assert "measured anew the next time" in caplog.text


def test_several_writers_lose_nothing(book: SpeedBook) -> None:
    names = [f"node-{number}" for number in range(8)]
    writers = [
        threading.Thread(target=book.record, args=(name, MAC, [speed(1e-12)])) for name in names
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(book.find(map(node, names), KIND)) == set(names)
