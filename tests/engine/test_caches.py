"""The account of the stages' caches: what is let go of for room, in which order, and what stays."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tbcluster.core import CacheCost, MicroBatch, TokenId
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.prefix_index import MIN_MATCH, PrefixEntry
from tbcluster.engine.saved_prefixes import new_name
from tbcluster.wire.messages import Step, decode_result, encode_step
from tbcluster.wire.operations import (
    CacheOperation,
    CopyCache,
    DropCache,
    ForgetSaved,
    JoinLane,
    KeepRows,
    LoadCache,
    NewCache,
    SaveCache,
    TakeRow,
)
from tests.doubles.engines import Settings, new_caches
from tests.doubles.stage_double import StageDouble


def size(num_tokens: int) -> int:
    """What a cache of so many tokens takes at one byte for each."""
    return KvMemory([[CacheCost(0, 1)]], [0]).bytes_for(num_tokens)[0]


# Of most caches here, and of one that needs more than one of them and less than two.
SMALL = size(41)
LARGE = size(301)
# The longest that takes no more.
SMALL_TOKENS = max(n for n in range(41, 301) if size(n) == SMALL)
# The longest in the room of three.
LONG_TOKENS = max(n for n in range(41, 3 * SMALL) if size(n) <= 3 * SMALL)
MUCH = 99 * SMALL


def book_of(num_bytes: int, max_trimmable_tokens: int | None = None) -> CacheBook:
    return new_caches(Settings(kv_tokens=num_bytes, max_trimmable_tokens=max_trimmable_tokens))


def prompt(kind: int, length: int = 40) -> tuple[TokenId, ...]:
    """Prompts of different kinds have no token in common."""
    return tuple(range(kind * 1000, kind * 1000 + length))


def started(
    book: CacheBook, tokens: tuple[TokenId, ...], *, uses_prefixes: bool = True
) -> tuple[int, int]:
    cache = book.start(tokens, uses_prefixes=uses_prefixes)
    assert cache is not None
    return cache.cache_id, cache.num_tokens


def known_prefix(book: CacheBook, tokens: tuple[TokenId, ...]) -> PrefixEntry:
    """A prefix that some sequence has left behind, and its operations are with the stages."""
    cache_id, _ = started(book, tokens, uses_prefixes=False)
    book.keep_prefix(cache_id, tokens)
    book.take_operations()
    (entry,) = (entry for entry in book.prefixes if entry.tokens == tokens)
    return entry


def used(book: CacheBook) -> int:
    (num_bytes,) = book.memory.used
    return num_bytes


def test_the_sizes_used_below() -> None:
    assert 40 < SMALL_TOKENS < 301
    assert SMALL < LARGE == size(SMALL_TOKENS + 1) < 2 * SMALL


# Sequences


def test_a_sequence_without_a_known_prefix_begins_empty() -> None:
    book = book_of(MUCH)
    known_prefix(book, prompt(1))
    for tokens, uses_prefixes in ((prompt(2), True), (prompt(1), False)):
        cache_id, num_tokens = started(book, tokens, uses_prefixes=uses_prefixes)
        assert num_tokens == 0
        assert book.take_operations() == (NewCache(cache_id),)


def test_a_sequence_begins_with_a_copy_of_the_best_prefix() -> None:
    book = book_of(MUCH)
    known_prefix(book, prompt(1, 30))
    entry = known_prefix(book, prompt(1, 40))
    assert entry.cache_id is not None
    cache = book.start((*prompt(1, 35), 7, 8), uses_prefixes=True)
    assert cache is not None
    assert (cache.num_tokens, cache.prefix) == (35, entry)
    assert book.take_operations() == (CopyCache(cache.cache_id, entry.cache_id, 5),)
    # The last token is always computed, and so a whole known prompt is trimmed by one.
    again, num_tokens = started(book, prompt(1, 40))
    assert num_tokens == 39
    assert book.take_operations() == (CopyCache(again, entry.cache_id, 1),)


def test_there_is_room_for_the_first_token_of_the_answer_too() -> None:
    assert book_of(SMALL).start(prompt(1, SMALL_TOKENS - 1), uses_prefixes=True) is not None
    assert book_of(SMALL).start(prompt(1, SMALL_TOKENS), uses_prefixes=True) is None
    assert book_of(LARGE).start(prompt(1, SMALL_TOKENS), uses_prefixes=True) is not None


def test_operations_are_handed_out_once_and_in_order() -> None:
    book = book_of(MUCH)
    first, _ = started(book, prompt(1))
    second, _ = started(book, prompt(2))
    book.drop(first)
    assert book.take_operations() == (NewCache(first), NewCache(second), DropCache(first))
    assert book.take_operations() == ()
    assert used(book) == SMALL


# Room


def test_room_is_made_by_letting_go_of_the_prefixes_that_were_unused_for_longest() -> None:
    book = book_of(4 * SMALL)
    entries = [known_prefix(book, prompt(kind)) for kind in (1, 2, 3, 4)]
    ids = [entry.cache_id for entry in entries]
    assert book.prefixes.find((*prompt(1), 0)) is not None  # the first was used just now
    cache_id, _ = started(book, prompt(9, 300))
    dropped = [DropCache(old) for old in ids[1:3] if old is not None]
    assert book.take_operations() == (*dropped, NewCache(cache_id))
    assert [entry in book.prefixes for entry in entries] == [True, False, False, True]
    assert used(book) == 2 * SMALL + LARGE


def test_no_more_is_let_go_of_than_is_needed() -> None:
    book = book_of(4 * SMALL)
    for kind in (1, 2, 3):
        known_prefix(book, prompt(kind))
    started(book, prompt(4))
    assert len(book.prefixes) == 3
    started(book, prompt(5))
    assert len(book.prefixes) == 2


def test_nothing_is_let_go_of_in_vain() -> None:
    book = book_of(SMALL + LARGE)
    started(book, prompt(9, 300))
    known_prefix(book, prompt(1))
    assert book.start(prompt(2, 300), uses_prefixes=True) is None
    assert len(book.prefixes) == 1
    assert book.take_operations() == ()
    assert used(book) == SMALL + LARGE


def test_what_is_being_copied_is_spared() -> None:
    book = book_of(3 * SMALL)
    # The source is the oldest by when it came; others have to go before it.
    source = known_prefix(book, prompt(1))
    other = known_prefix(book, prompt(2))
    started(book, prompt(9))
    book.take_operations()
    assert source.cache_id is not None
    assert other.cache_id is not None
    other_id = other.cache_id
    cache_id, num_tokens = started(book, (*prompt(1), 7))
    assert num_tokens == 40
    assert book.take_operations() == (
        DropCache(other_id),
        CopyCache(cache_id, source.cache_id, 0),
    )
    assert source in book.prefixes
    assert other not in book.prefixes


def test_a_source_that_is_in_the_way_itself_goes_after_its_copy() -> None:
    book = book_of(LARGE)
    source = known_prefix(book, prompt(1, 250))
    assert source.cache_id is not None
    source_id = source.cache_id
    cache_id, num_tokens = started(book, prompt(1, 400))
    assert num_tokens == 250
    assert book.take_operations() == (CopyCache(cache_id, source_id, 0), DropCache(source_id))
    assert len(book.prefixes) == 0
    assert used(book) == LARGE


def test_whatever_is_over_the_budget_is_let_go_of() -> None:
    book = book_of(2 * SMALL)
    for number in (1, 2):
        cache_id, _ = started(book, prompt(number, 40))
        book.keep_prefix(cache_id, prompt(number, 40))
    assert not book.memory.is_over
    book.take_row(99, 0, 40)
    assert book.memory.is_over
    book.take_operations()
    book.evict_while_over()
    assert [entry.tokens for entry in book.prefixes] == [prompt(2, 40)]
    assert len(book.take_operations()) == 1
    assert used(book) == 2 * SMALL


# Lanes


def test_caches_become_rows_and_rows_become_caches() -> None:
    book = book_of(MUCH)
    first, _ = started(book, prompt(1))
    second, _ = started(book, prompt(2))
    book.take_operations()
    lane = book.new_lane()
    assert book.join(lane, [first, second], num_rows=2, num_tokens=300)
    assert used(book) == 2 * LARGE  # rows are padded to the longest
    row = book.take_row(lane, 1, 41)
    book.keep_rows(lane, [0], 300)
    assert used(book) == LARGE + SMALL
    book.drop(lane)
    assert book.take_operations() == (
        JoinLane(lane, (first, second)),
        TakeRow(row, lane, 1),
        KeepRows(lane, (0,)),
        DropCache(lane),
    )
    assert len({first, second, lane, row}) == 4
    assert used(book) == SMALL


def test_a_lane_grows_at_the_cost_of_prefixes_only() -> None:
    book = book_of(3 * SMALL)
    first, _ = started(book, prompt(1))
    second, _ = started(book, prompt(2))
    lane = book.new_lane()
    assert book.join(lane, [first, second], 2, 41)
    entry = known_prefix(book, prompt(3))
    assert entry.cache_id is not None
    prefix_id = entry.cache_id
    assert book.grow(lane, 2, SMALL_TOKENS)
    assert book.take_operations() == ()
    assert not book.grow(lane, 2, LONG_TOKENS)
    assert book.take_operations() == ()
    assert (used(book), len(book.prefixes)) == (3 * SMALL, 1)
    book.keep_rows(lane, [1], SMALL_TOKENS)
    assert book.grow(lane, 1, LONG_TOKENS)
    assert book.take_operations() == (KeepRows(lane, (1,)), DropCache(prefix_id))
    assert (used(book), len(book.prefixes)) == (size(LONG_TOKENS), 0)


def test_a_join_without_room_changes_nothing() -> None:
    book = book_of(3 * SMALL)
    ids = [started(book, prompt(kind))[0] for kind in (1, 2, 3)]
    book.take_operations()
    lane = book.new_lane()
    assert not book.join(lane, ids, 3, SMALL_TOKENS + 1)
    assert book.take_operations() == ()
    assert used(book) == 3 * SMALL
    # What they take is given back when they are dropped, not more.
    for cache_id in ids:
        book.drop(cache_id)
    assert used(book) == 0
    assert book.memory.fits(SMALL_TOKENS, 3)


def test_a_join_makes_room() -> None:
    book = book_of(3 * SMALL)
    ids = [started(book, prompt(kind))[0] for kind in (1, 2)]
    entry = known_prefix(book, prompt(3))
    assert entry.cache_id is not None
    prefix_id = entry.cache_id
    book.take_operations()
    lane = book.new_lane()
    assert book.join(lane, ids, 2, SMALL_TOKENS + 1)
    assert book.take_operations() == (DropCache(prefix_id), JoinLane(lane, tuple(ids)))


# Prefixes


def test_a_cache_too_short_to_be_of_use_is_dropped() -> None:
    book = book_of(MUCH)
    cache_id, _ = started(book, prompt(1, 15))
    book.keep_prefix(cache_id, prompt(1, MIN_MATCH - 1))
    assert book.take_operations() == (NewCache(cache_id), DropCache(cache_id))
    assert len(book.prefixes) == 0
    assert used(book) == 0


def test_a_longer_prefix_replaces_those_it_begins_with() -> None:
    book = book_of(MUCH)
    # Kept apart by the order in which they come: a later shorter one replaces nothing.
    longer = known_prefix(book, prompt(1, 30))
    short = known_prefix(book, prompt(1, 20))
    other = known_prefix(book, prompt(2, 20))
    longer.saved_as = "aa"
    ids = {longer.cache_id, short.cache_id}
    cache_id, _ = started(book, prompt(1, 40), uses_prefixes=False)
    book.take_operations()
    book.keep_prefix(cache_id, prompt(1, 40))
    operations = book.take_operations()
    assert {op.cache_id for op in operations if isinstance(op, DropCache)} == ids
    assert [op for op in operations if not isinstance(op, DropCache)] == [ForgetSaved("aa")]
    assert book.take_forgotten() == ["aa"]
    assert book.take_forgotten() == []
    assert [entry.tokens for entry in book.prefixes] == [other.tokens, prompt(1, 40)]
    assert used(book) == 2 * SMALL


def test_a_running_sequence_lends_a_copy() -> None:
    book = book_of(MUCH)
    cache_id, _ = started(book, prompt(1))
    book.take_operations()
    copy = book.copy_as_prefix(cache_id, prompt(1, 39))
    (entry,) = book.prefixes
    assert entry is copy
    assert entry.tokens == prompt(1, 39)
    assert not entry.is_proven  # the steps that it holds may yet fail
    assert entry.cache_id not in (None, cache_id)
    assert book.take_operations() == (CopyCache(entry.cache_id or 0, cache_id, 0),)
    assert used(book) == 2 * SMALL


def test_no_copy_is_lent_without_room_or_use() -> None:
    book = book_of(2 * SMALL)
    (cache_id, _), (other, _) = (started(book, prompt(kind)) for kind in (1, 2))
    book.take_operations()
    assert book.copy_as_prefix(cache_id, prompt(1)) is None
    assert (book.take_operations(), used(book), len(book.prefixes)) == ((), 2 * SMALL, 0)
    book.drop(other)
    book.take_operations()
    assert book.copy_as_prefix(cache_id, prompt(1, MIN_MATCH - 1)) is None
    assert book.take_operations() == ()
    assert book.copy_as_prefix(cache_id, prompt(1, MIN_MATCH)) is not None


def test_a_copy_takes_the_place_of_older_prefixes() -> None:
    book = book_of(2 * SMALL)
    old = known_prefix(book, prompt(1)).cache_id
    assert old is not None
    cache_id, _ = started(book, prompt(2))
    book.take_operations()
    entry = book.copy_as_prefix(cache_id, prompt(2))
    assert entry is not None
    assert book.take_operations() == (DropCache(old), CopyCache(entry.cache_id or 0, cache_id, 0))
    assert list(book.prefixes) == [entry]
    assert used(book) == 2 * SMALL


def test_what_can_be_kept() -> None:
    book = book_of(2 * SMALL)
    running, _ = started(book, prompt(1))
    assert not book.can_keep(MIN_MATCH - 1)
    assert book.can_keep(MIN_MATCH)
    assert not book.can_keep(SMALL_TOKENS + 1)
    known_prefix(book, prompt(2))
    assert not book.can_keep(SMALL_TOKENS + 1)
    assert len(book.prefixes) == 1  # not let go of in vain
    assert book.can_keep(SMALL_TOKENS)
    assert len(book.prefixes) == 0
    started(book, prompt(3))
    assert not book.can_keep(MIN_MATCH)
    book.drop(running)
    assert book.can_keep(MIN_MATCH)


def test_what_is_kept_is_told() -> None:
    book = book_of(MUCH)
    ids = [started(book, prompt(kind))[0] for kind in (1, 2)]
    entry = book.keep_prefix(ids[0], prompt(1))
    assert entry is not None
    assert (entry.tokens, entry.cache_id, entry.is_proven) == (prompt(1), ids[0], True)
    assert book.keep_prefix(ids[1], prompt(2, MIN_MATCH - 1)) is None


def test_a_book_that_reuses_nothing() -> None:
    with_prefixes = book_of(MUCH)
    book = CacheBook(with_prefixes.memory, with_prefixes.prefixes, reuses_prefixes=False)
    cache_id, _ = started(book, prompt(1))
    assert not book.can_keep(40)
    assert book.copy_as_prefix(cache_id, prompt(1)) is None
    assert book.take_operations() == (NewCache(cache_id),)
    assert book.keep_prefix(cache_id, prompt(1)) is None
    assert book.take_operations() == (DropCache(cache_id),)
    assert (used(book), len(book.prefixes)) == (0, 0)
    # Not even of what is known.
    known_prefix(with_prefixes, prompt(1))
    again, num_tokens = started(book, (*prompt(1), 7))
    assert num_tokens == 0
    assert book.take_operations() == (NewCache(again),)


def test_whoever_waits_for_room_is_told_when_there_may_be_more() -> None:
    book = book_of(MUCH)
    first, second, third = (started(book, prompt(kind))[0] for kind in (1, 2, 3))
    lane = book.new_lane()
    assert book.join(lane, [first, second], 2, 41)
    assert book.grow(lane, 2, 42)
    row = book.take_row(lane, 0, 42)
    assert book.num_freed == 0
    counts = []
    for frees in (
        lambda: book.keep_rows(lane, [1], 42),
        lambda: book.drop(lane),
        lambda: book.keep_prefix(row, prompt(1)),
        lambda: book.keep_prefix(third, prompt(3, MIN_MATCH - 1)),
        lambda: book.forget_prefix(next(iter(book.prefixes))),
        book.clear,
    ):
        before = book.num_freed
        frees()
        counts.append(book.num_freed > before)
    assert counts == [True] * 6


def test_a_forgotten_prefix_is_gone_from_memory_and_disk() -> None:
    book = book_of(MUCH)
    entry = known_prefix(book, prompt(1))
    cache_id, entry.saved_as = entry.cache_id, "aa"
    assert cache_id is not None
    book.forget_prefix(entry)
    assert book.take_operations() == (DropCache(cache_id), ForgetSaved("aa"))
    assert book.take_forgotten() == ["aa"]
    book.forget_prefix(entry)  # of two requests that failed with it
    assert book.take_operations() == ()
    assert book.take_forgotten() == []
    assert book.start((*prompt(1), 7), uses_prefixes=True) is not None
    assert used(book) == SMALL


# Prefixes on disk


def test_a_saved_prefix_survives_eviction_and_is_loaded_again() -> None:
    book = book_of(2 * SMALL)
    entry = known_prefix(book, prompt(1))
    entry.saved_as = "aa"
    evicted = entry.cache_id
    assert evicted is not None
    running, _ = started(book, prompt(9, 300))
    assert book.take_operations() == (DropCache(evicted), NewCache(running))
    assert entry in book.prefixes
    assert (entry.cache_id, entry.saved_as) == (None, "aa")
    assert book.take_forgotten() == []
    book.drop(running)
    book.take_operations()
    cache_id, num_tokens = started(book, (*prompt(1), 7, 8))
    assert num_tokens == 40
    assert entry.cache_id is not None
    assert book.take_operations() == (
        LoadCache(entry.cache_id, "aa"),
        CopyCache(cache_id, entry.cache_id, 0),
    )
    assert used(book) == 2 * SMALL
    # It is in memory now.
    book.drop(cache_id)
    again, _ = started(book, (*prompt(1), 9, 9))
    assert book.take_operations() == (DropCache(cache_id), CopyCache(again, entry.cache_id, 0))


@pytest.mark.parametrize("max_trimmable_tokens", [None, 0])
def test_what_comes_from_disk_leaves_a_token_for_a_chunk(max_trimmable_tokens: int | None) -> None:
    """Until a step that used it has succeeded: the file may be damaged."""
    book = book_of(MUCH, max_trimmable_tokens)
    entry = known_prefix(book, prompt(1))
    entry.saved_as = "aa"
    book.clear()
    expected = 0 if max_trimmable_tokens == 0 else 39
    whole_but_one = (*prompt(1), 7)
    assert started(book, whole_but_one)[1] == expected
    assert started(book, (*whole_but_one, 8))[1] == 40
    assert not entry.is_proven
    assert entry.cache_id is not None
    assert started(book, whole_but_one)[1] == expected
    entry.is_proven = True
    assert started(book, whole_but_one)[1] == 40


def test_a_prefix_that_was_loaded_without_room_to_stay_is_dropped_after_its_copy() -> None:
    book = book_of(SMALL)
    entry = known_prefix(book, prompt(1))
    entry.saved_as = "aa"
    book.drop(started(book, prompt(9), uses_prefixes=False)[0])
    book.take_operations()
    assert entry.cache_id is None
    cache_id, num_tokens = started(book, (*prompt(1), 7, 8))
    assert num_tokens == 40
    load, copy, drop = book.take_operations()
    assert isinstance(load, LoadCache)
    assert copy == CopyCache(cache_id, load.cache_id, 0)
    assert drop == DropCache(load.cache_id)
    assert (entry.cache_id, entry.saved_as) == (None, "aa")
    assert entry in book.prefixes
    assert used(book) == SMALL


def test_leaving_the_disk() -> None:
    book = book_of(MUCH)
    in_memory, on_disk = (known_prefix(book, prompt(kind)) for kind in (1, 2))
    in_memory.saved_as, on_disk.saved_as = "aa", "bb"
    assert on_disk.cache_id is not None
    book.drop(on_disk.cache_id)
    on_disk.cache_id = None
    book.take_operations()
    for entry in (in_memory, on_disk):
        book.leave_disk(entry)
        assert entry.saved_as is None
        assert not entry.is_savable  # it would only be written again
    assert list(book.prefixes) == [in_memory]
    # Whoever decided it tells the stages.
    assert book.take_operations() == ()
    assert book.take_forgotten() == []


def test_after_a_loss_only_the_disk_remains() -> None:
    book = book_of(MUCH)
    in_memory, saved = (known_prefix(book, prompt(kind)) for kind in (1, 2))
    saved.saved_as = "bb"
    started(book, prompt(3))
    book.clear()
    assert list(book.prefixes) == [saved]
    assert saved.cache_id is None
    assert in_memory not in book.prefixes
    assert book.take_operations() == ()
    assert book.memory.used == (0,)
    # No id comes twice: results of the old epoch may still be on their way.
    cache_id, _ = started(book, prompt(4))
    assert cache_id > 3


def test_a_loss_does_not_keep_files_from_being_deleted() -> None:
    book = book_of(MUCH)
    known_prefix(book, prompt(1)).saved_as = "aa"
    started(book, prompt(2))
    book.forget_prefix(next(iter(book.prefixes)))
    book.delete_saved("bb")
    book.clear()
    assert book.take_operations() == (ForgetSaved("aa"), ForgetSaved("bb"))
    assert book.take_forgotten() == ["aa"]


def test_every_stage_counts() -> None:
    memory = KvMemory([[CacheCost(0, 1)], [CacheCost(0, 2)]], [10 * SMALL, 4 * SMALL])
    index = book_of(0).prefixes
    book = CacheBook(memory, index)
    assert book.num_stages == 2
    known_prefix(book, prompt(1))
    known_prefix(book, prompt(2))
    started(book, prompt(3))
    assert [entry.tokens for entry in book.prefixes] == [prompt(2)]
    assert book.memory.used == (2 * SMALL, 4 * SMALL)


# Random driving, against a stage that refuses what cannot be done

RUNS = ((1,) * 20, (2,) * 20, (3,) * 200, tuple(range(70)), (4, 5))
prompts = st.lists(st.sampled_from(RUNS), min_size=1, max_size=4).map(
    lambda runs: tuple(token for run in runs for token in run)
)


class BookMachine(RuleBasedStateMachine):
    """Sequences that start, are over, or become prefixes, some of which are saved."""

    @initialize(
        num_bytes=st.integers(SMALL, 5 * SMALL),
        max_trimmable=st.sampled_from([None, None, 0, 30, 200]),
    )
    def begin(self, num_bytes: int, max_trimmable: int | None) -> None:
        self.book = book_of(num_bytes, max_trimmable)
        self.num_bytes = num_bytes
        self.stage = StageDouble()
        self.epoch = 1
        self.num_steps = 0
        self.running: dict[int, tuple[TokenId, ...]] = {}

    def send(self, micro_batch: MicroBatch | None = None, *more: CacheOperation) -> None:
        operations = (*self.book.take_operations(), *more)
        step = Step(self.epoch, self.num_steps, operations, micro_batch)
        self.num_steps += 1
        self.stage.inbound.send([bytes(frame) for frame in encode_step(step)])
        self.stage.work()
        frames = self.stage.results.receive(0)
        assert frames is not None
        assert decode_result(frames).error is None, decode_result(frames).error

    @rule(tokens=prompts, uses_prefixes=st.sampled_from([True, True, False]))
    def start_any(self, tokens: tuple[TokenId, ...], uses_prefixes: bool) -> None:
        self.start(tokens, uses_prefixes=uses_prefixes)

    def start(self, tokens: tuple[TokenId, ...], *, uses_prefixes: bool) -> None:
        num_known = self.book.prefixes.would_cover(tokens) if uses_prefixes else 0
        cache = self.book.start(tokens, uses_prefixes=uses_prefixes)
        alone = sum(size(len(other) + 1) for other in (*self.running.values(), tokens))
        assert (cache is not None) == (alone <= self.num_bytes)
        if cache is None:
            return
        if cache.prefix is not None and cache.prefix.is_proven:
            assert cache.num_tokens == num_known
        elif num_known == len(tokens) - 1:
            assert cache.num_tokens == (0 if cache.prefix is None else num_known - 1)
        else:
            assert cache.num_tokens == num_known
        assert (cache.num_tokens == 0) == (cache.prefix is None)
        self.send(MicroBatch(cache.cache_id, tokens[cache.num_tokens :]))
        assert self.stage.contexts[cache.cache_id] == [list(tokens)]
        self.running[cache.cache_id] = tokens

    @precondition(lambda self: self.running)
    @rule(data=st.data(), fate=st.sampled_from(["dropped", "kept", "saved", "saved"]))
    def end(self, data: st.DataObject, fate: str) -> None:
        cache_id = data.draw(st.sampled_from(sorted(self.running)))
        tokens = self.running.pop(cache_id)
        if fate == "dropped":
            self.book.drop(cache_id)
        else:
            self.book.keep_prefix(cache_id, tokens)
        if fate == "saved":
            self.save()

    @precondition(lambda self: self.running)
    @rule(data=st.data(), saves=st.booleans())
    def lend(self, data: st.DataObject, saves: bool) -> None:
        cache_id = data.draw(st.sampled_from(sorted(self.running)))
        tokens = self.running[cache_id]
        entry = self.book.copy_as_prefix(cache_id, tokens)
        taken = sum(size(len(other) + 1) for other in self.running.values()) + size(len(tokens))
        assert (entry is not None) == (len(tokens) >= MIN_MATCH and taken <= self.num_bytes)
        assert entry is None or not entry.is_proven
        if saves:
            self.save()

    def save(self) -> None:
        for entry in self.book.prefixes:
            if entry.cache_id is not None and entry.saved_as is None:
                name = new_name()
                self.send(None, SaveCache(entry.cache_id, name))
                entry.saved_as = name

    @precondition(lambda self: len(self.book.prefixes))
    @rule(data=st.data(), suffix=st.sampled_from([(), (9,), (9, 9), (9,) * 300]))
    def start_from_known(self, data: st.DataObject, suffix: tuple[TokenId, ...]) -> None:
        entry = data.draw(st.sampled_from(list(self.book.prefixes)))
        self.start((*entry.tokens, *suffix), uses_prefixes=True)

    @precondition(lambda self: not all(entry.is_proven for entry in self.book.prefixes))
    @rule()
    def prove(self) -> None:
        for entry in self.book.prefixes:
            entry.is_proven = True

    @precondition(lambda self: len(self.book.prefixes))
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(list(self.book.prefixes)))
        name = entry.saved_as
        self.book.forget_prefix(entry)
        assert entry not in self.book.prefixes
        assert name is None or name in self.book.take_forgotten()

    @precondition(lambda self: any(entry.saved_as for entry in self.book.prefixes))
    @rule(data=st.data())
    def leave_disk(self, data: st.DataObject) -> None:
        saved = [entry for entry in self.book.prefixes if entry.saved_as is not None]
        entry = data.draw(st.sampled_from(saved))
        self.send(None, ForgetSaved(entry.saved_as or ""))
        self.book.leave_disk(entry)

    @precondition(lambda self: len(self.book.prefixes))
    @rule()
    def lose_a_stage(self) -> None:
        self.epoch += 1
        self.running.clear()
        self.book.clear()

    @invariant()
    def the_stage_holds_what_the_book_says(self) -> None:
        if not hasattr(self, "book"):
            return
        self.book.evict_while_over()
        self.send()
        entries = list(self.book.prefixes)
        prefixes = {e.cache_id: [list(e.tokens)] for e in entries if e.cache_id is not None}
        running = {cache_id: [list(tokens)] for cache_id, tokens in self.running.items()}
        assert self.stage.contexts == prefixes | running
        assert self.stage.saved == {e.saved_as: list(e.tokens) for e in entries if e.saved_as}
        assert all(e.cache_id is not None or e.saved_as is not None for e in entries)

        # Its memory is counted, and within the budget.
        lengths = [len(e.tokens) for e in entries if e.cache_id is not None]
        lengths += [len(tokens) + 1 for tokens in self.running.values()]
        assert used(self.book) == sum(size(length) for length in lengths)
        assert used(self.book) <= self.num_bytes


TestBookMachine = BookMachine.TestCase


@pytest.mark.parametrize("num_tokens", [MIN_MATCH, MIN_MATCH + 1, 300])
def test_what_cannot_be_trimmed_serves_only_longer_prompts(num_tokens: int) -> None:
    book = book_of(MUCH, max_trimmable_tokens=0)
    known_prefix(book, prompt(1, num_tokens))
    assert started(book, prompt(1, num_tokens))[1] == 0
    assert started(book, prompt(1, num_tokens + 1))[1] == num_tokens
