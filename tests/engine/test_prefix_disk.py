"""What is written to the stages' disks and what is deleted there, against stages that obey."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tbcluster.core import TokenId
from tbcluster.engine.prefix_disk import PrefixDisk
from tbcluster.engine.prefix_index import PrefixEntry
from tbcluster.engine.saved_prefixes import SavedPrefixes, new_name
from tbcluster.wire.messages import Step, decode_result, encode_step
from tbcluster.wire.operations import (
    CacheOperation,
    DropCache,
    ForgetSaved,
    KeepSaved,
    SaveCache,
)
from tests.doubles.engines import Settings, new_caches
from tests.doubles.stage_double import StageDouble

MUCH = 1 << 40
LENGTH = 100


def tokens(first: TokenId, num_tokens: int = LENGTH) -> tuple[TokenId, ...]:
    return (first,) * num_tokens


def num_bytes(num_tokens: int = LENGTH) -> int:
    """What a prefix of so many tokens takes on disk."""
    return sum(new_caches(Settings()).memory.bytes_for(num_tokens))


class Bench:
    """The disk, and two stages that do in each turn what an engine without requests tells them."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.saved = SavedPrefixes(folder, "model", max_bytes)
        self.book = new_caches(Settings())
        self.disk = PrefixDisk(self.book, self.saved)
        self.stages = StageDouble(), StageDouble()
        self.num_steps = 0

    def know(self, *all_tokens: tuple[TokenId, ...]) -> None:
        """A sequence was computed, and its cache is kept, for each."""
        for prompt in all_tokens:
            cache = self.book.start(prompt, uses_prefixes=False)
            assert cache is not None
            self.book.keep_prefix(cache.cache_id, prompt)

    def entry(self, prompt: tuple[TokenId, ...]) -> PrefixEntry:
        return next(entry for entry in self.book.prefixes if entry.tokens == prompt)

    def turn(self) -> tuple[CacheOperation, ...]:
        """What the disk had to tell the stages, once they have done it."""
        step_id, operations = self.begin_turn()
        error = self.send(operations)
        self.disk.completed(step_id, error)
        return operations

    def begin_turn(self) -> tuple[int, tuple[CacheOperation, ...]]:
        """As far as sending the operations of the disk."""
        self.send(self.book.take_operations())
        self.disk.forget(self.book.take_forgotten())
        operations = self.disk.next_operations()
        self.num_steps += 1
        if operations:
            self.disk.sent(self.num_steps, operations)
        return self.num_steps, operations

    def send(self, operations: tuple[CacheOperation, ...]) -> str | None:
        errors = []
        for stage in self.stages:
            stage.inbound.send([bytes(f) for f in encode_step(Step(1, 0, operations))])
            stage.work()
            frames = stage.results.receive(0)
            assert frames is not None
            errors.append(decode_result(frames).error)
        return next(filter(None, errors), None)

    def settle(self) -> None:
        """Turns until there is nothing left to say."""
        while self.turn():
            pass
        self.send(self.book.take_operations())

    def on_disk(self) -> list[int]:
        """The first token of each saved prefix: the same everywhere, and as the list says."""
        for stage in self.stages:
            assert stage.saved.keys() == set(self.saved.names)
        return sorted(entry.tokens[0] for entry in self.saved.entries())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "prefixes", MUCH)
    with closing(bench.disk):
        yield bench


def opened(tmp_path: Path, max_bytes: int) -> Bench:
    """Nothing to sweep any more."""
    bench = Bench(tmp_path / "small", max_bytes)
    bench.settle()
    return bench


def test_prefixes_are_written_one_at_a_time(bench: Bench) -> None:
    bench.settle()
    bench.know(tokens(1), tokens(2))
    step_id, operations = bench.begin_turn()
    assert [type(operation) for operation in operations] == [SaveCache]
    assert bench.begin_turn()[1] == ()
    bench.disk.completed(step_id + 1, None)
    assert bench.begin_turn()[1] == ()
    bench.disk.completed(step_id, bench.send(operations))
    assert bench.on_disk() == [1]
    bench.settle()
    assert bench.on_disk() == [1, 2]


def test_first_of_all_the_stages_delete_what_the_list_does_not_name(bench: Bench) -> None:
    bench.know(tokens(1))
    bench.stages[0].saved["aa"] = []
    assert bench.turn() == (KeepSaved(()),)
    assert bench.stages[0].saved == {}
    assert isinstance(bench.turn()[0], SaveCache)
    assert bench.turn() == ()


def test_what_the_list_names_is_kept(bench: Bench) -> None:
    bench.know(tokens(1), tokens(2))
    bench.settle()
    bench.disk.close()
    again = Bench(bench.folder, MUCH)
    again.stages = bench.stages
    bench.stages[1].saved["aa"] = []
    assert again.turn() == (KeepSaved(bench.saved.names),)
    assert again.on_disk() == [1, 2]
    assert again.turn() == ()
    again.disk.close()


def test_what_is_lost_on_its_way_is_swept(bench: Bench) -> None:
    """The stages may have saved it, or one of them, before the epoch ended."""
    bench.know(tokens(1), tokens(2))
    bench.turn()
    bench.turn()
    (known,) = bench.saved.names
    step_id, operations = bench.begin_turn()
    bench.send(operations)
    bench.book.clear()
    bench.disk.clear()
    bench.disk.completed(step_id, None)
    assert bench.turn() == (KeepSaved((known,)),)
    assert bench.on_disk() == [1]
    bench.know(tokens(2))
    bench.settle()
    assert bench.on_disk() == [1, 2]


def test_a_sweep_that_is_lost_is_sent_again(bench: Bench) -> None:
    bench.begin_turn()
    bench.disk.clear()
    assert bench.turn() == (KeepSaved(()),)
    assert bench.turn() == ()


def test_a_forget_that_is_lost_is_swept(bench: Bench) -> None:
    bench.know(tokens(1))
    bench.settle()
    bench.book.forget_prefix(bench.entry(tokens(1)))
    bench.book.take_operations()
    bench.disk.clear()
    bench.settle()
    assert bench.on_disk() == []


def test_what_one_stage_cannot_write_is_deleted_by_the_others(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.settle()
    bench.know(tokens(1))
    step_id, operations = bench.begin_turn()
    bench.stages[1].contexts.clear()
    bench.disk.completed(step_id, bench.send(operations))
    assert "could not be written" in caplog.text
    assert len(bench.stages[0].saved) == 1
    assert not bench.entry(tokens(1)).is_savable
    bench.settle()
    assert bench.on_disk() == []
    assert bench.turn() == ()


def test_what_is_known_no_more_when_it_is_written_is_deleted(bench: Bench) -> None:
    bench.settle()
    bench.know(tokens(1))
    step_id, operations = bench.begin_turn()
    bench.know(tokens(1, LENGTH + 1))
    bench.disk.completed(step_id, bench.send(operations))
    assert len(bench.stages[0].saved) == 1
    bench.settle()
    assert bench.on_disk() == [1]
    assert [len(entry.tokens) for entry in bench.saved.entries()] == [LENGTH + 1]


def test_what_is_larger_than_the_disk_deletes_nothing(tmp_path: Path) -> None:
    bench = opened(tmp_path, num_bytes())
    bench.know(tokens(1))
    bench.settle()
    bench.know(tokens(2, 10 * LENGTH))
    assert bench.turn() == ()
    assert bench.on_disk() == [1]
    # Nor does it keep what comes later from being written.
    bench.know(tokens(3))
    bench.settle()
    assert bench.on_disk() == [3]
    bench.disk.close()


def test_the_longest_unused_goes_first(tmp_path: Path) -> None:
    bench = opened(tmp_path, 2 * num_bytes())
    bench.know(tokens(1), tokens(2))
    bench.settle()
    assert bench.book.prefixes.find(tokens(1)) is not None
    given_up = bench.entry(tokens(2))
    name = given_up.saved_as
    bench.know(tokens(3))
    forget, save = bench.turn()
    assert forget == ForgetSaved(name or "")
    assert isinstance(save, SaveCache)
    assert bench.on_disk() == [1, 3]
    # It is in memory still, and is not written a second time.
    assert given_up in bench.book.prefixes
    assert bench.turn() == ()
    bench.disk.close()


def test_as_many_go_as_are_in_the_way(tmp_path: Path) -> None:
    bench = opened(tmp_path, num_bytes(10 * LENGTH))
    bench.know(tokens(1), tokens(2))
    bench.settle()
    in_memory, on_disk_only = bench.entry(tokens(1)), bench.entry(tokens(2))
    assert on_disk_only.cache_id is not None
    bench.send((DropCache(on_disk_only.cache_id),))
    bench.book.memory.release(on_disk_only.cache_id)
    on_disk_only.cache_id = None
    bench.know(tokens(3, 10 * LENGTH))
    operations = bench.turn()
    assert [type(operation) for operation in operations] == [ForgetSaved, ForgetSaved, SaveCache]
    assert bench.on_disk() == [3]
    assert in_memory in bench.book.prefixes
    assert on_disk_only not in bench.book.prefixes
    bench.disk.close()


def test_asking_changes_nothing_until_it_was_sent(tmp_path: Path) -> None:
    bench = opened(tmp_path, num_bytes())
    bench.know(tokens(1))
    bench.settle()
    bench.know(tokens(2))
    bench.send(bench.book.take_operations())
    assert len(bench.disk.next_operations()) == 2
    assert bench.on_disk() == [1]
    bench.disk.close()


def test_the_list_is_written_while_nothing_runs(bench: Bench) -> None:
    path = bench.folder / "prefixes"
    bench.settle()
    bench.know(tokens(1))
    bench.turn()
    assert bench.on_disk() == [1]
    assert not path.exists()
    bench.turn()
    written = path.read_bytes()
    bench.disk.forget(bench.saved.names)
    assert path.read_bytes() == written
    bench.turn()
    assert path.read_bytes() != written


def test_close_writes_the_list(bench: Bench) -> None:
    bench.turn()
    bench.know(tokens(1))
    bench.turn()
    bench.disk.close()
    with closing(SavedPrefixes(bench.folder, "model", MUCH)) as again:
        assert again.names == bench.saved.names


def test_what_comes_after_close_does_no_harm(bench: Bench) -> None:
    bench.turn()
    bench.know(tokens(1), tokens(2))
    step_id, operations = bench.begin_turn()
    bench.disk.close()
    bench.disk.completed(step_id, bench.send(operations))
    bench.turn()
    bench.disk.forget(bench.saved.names)
    bench.disk.next_operations()
    bench.disk.close()
    with closing(SavedPrefixes(bench.folder, "model", MUCH)) as again:
        assert again.names == ()


def test_what_the_list_names_twice_over_is_deleted(tmp_path: Path) -> None:
    """A prefix of another one serves nobody."""
    shorter, longer = (
        PrefixEntry(tokens(1, length), None, new_name()) for length in (LENGTH, 2 * LENGTH)
    )
    with closing(SavedPrefixes(tmp_path, "model", MUCH)) as saved:
        saved.record(shorter, 1)
        saved.record(longer, 1)
    bench = Bench(tmp_path, MUCH)
    assert bench.turn() == (KeepSaved((longer.saved_as or "",)),)
    bench.disk.close()
