"""The prefix index against a list of all entries that are compared token by token."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tbcluster.core import TokenId
from tbcluster.engine.prefix_index import (
    MIN_MATCH,
    PrefixEntry,
    PrefixIndex,
    PrefixMatch,
    common_length,
)

Tokens = tuple[TokenId, ...]

# Few different runs, so that random prompts share, extend and contradict each other's tokens.
RUNS: tuple[Tokens, ...] = ((1,), (2,), (1, 2, 3), tuple(range(MIN_MATCH)), (7,) * 300)
prompts = st.lists(st.sampled_from(RUNS), max_size=6).map(lambda runs: sum(runs, ()))
limits = st.none() | st.integers(0, 50) | st.sampled_from([300, 317, 700])


def num_shared(left: Tokens, right: Tokens) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


class Model:
    """What the index promises, the slow way: `entries` is a list, oldest use first."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.entries: list[PrefixEntry] = []

    def can_trim(self, entry: PrefixEntry) -> bool:
        return self.limit is None or len(entry.tokens) < self.limit

    def covered_by(self, entry: PrefixEntry, prompt: Tokens) -> int:
        num_tokens = num_shared(entry.tokens, prompt[:-1])
        usable = num_tokens == len(entry.tokens) or self.can_trim(entry)
        return num_tokens if usable and num_tokens >= MIN_MATCH else 0

    def cover(self, prompt: Tokens) -> int:
        return max((self.covered_by(entry, prompt) for entry in self.entries), default=0)

    def use(self, entry: PrefixEntry) -> None:
        self.entries.remove(entry)
        self.entries.append(entry)

    def add(self, entry: PrefixEntry) -> set[PrefixEntry]:
        superfluous = {known for known in self.entries if self.is_superfluous(known, entry)}
        self.entries = [known for known in self.entries if known not in superfluous] + [entry]
        return superfluous

    def is_superfluous(self, known: PrefixEntry, new: PrefixEntry) -> bool:
        shorter = new.tokens[: len(known.tokens)] == known.tokens
        return known.tokens == new.tokens or (shorter and self.can_trim(new))


class IndexMachine(RuleBasedStateMachine):
    """Does the same to the index and to its model."""

    @initialize(limit=limits)
    def begin(self, limit: int | None) -> None:
        self.index = PrefixIndex(limit)
        self.model = Model(limit)

    @rule(tokens=prompts, in_memory=st.booleans())
    def add(self, tokens: Tokens, in_memory: bool) -> None:
        entry = PrefixEntry(tokens, 1 if in_memory else None)
        removed = self.index.add(entry)
        assert len(removed) == len(set(removed))
        assert set(removed) == self.model.add(entry)

    @rule(prompt=prompts)
    def find(self, prompt: Tokens) -> None:
        expected = self.model.cover(prompt)
        assert self.index.would_cover(prompt) == expected
        match = self.index.find(list(prompt))
        if match is None:
            assert expected == 0
            return
        assert match.num_tokens == self.model.covered_by(match.entry, prompt) == expected
        equals = [e for e in self.model.entries if self.model.covered_by(e, prompt) == expected]
        in_memory = [entry for entry in equals if entry.cache_id is not None] or equals
        assert match.entry in in_memory
        assert len(match.entry.tokens) == min(len(entry.tokens) for entry in in_memory)
        self.model.use(match.entry)

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data())
    def find_again(self, data: st.DataObject) -> None:
        """A prompt that goes on from an entry, or ends with it."""
        entry = data.draw(st.sampled_from(self.model.entries))
        self.find(entry.tokens + data.draw(prompts))

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """An entry's cache is dropped from memory, or loaded: the index is not told."""
        entry = data.draw(st.sampled_from(self.model.entries))
        entry.cache_id = 2 if entry.cache_id is None else None

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.model.entries))
        self.index.remove(entry)
        self.model.entries.remove(entry)

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data())
    def add_again(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.model.entries))
        assert self.index.add(entry) == []
        self.model.use(entry)

    @invariant()
    def the_entries_are_in_order_of_last_use(self) -> None:
        entries = self.model.entries
        assert list(self.index) == entries
        assert all(entry in self.index for entry in entries)
        assert len(self.index) == len(entries)
        assert self.index.oldest() is (entries[0] if entries else None)
        on_disk = [entry for entry in entries if entry.cache_id is None]
        oldest = self.index.oldest(lambda entry: entry.cache_id is None)
        assert oldest is (on_disk[0] if on_disk else None)


TestIndexMachine = IndexMachine.TestCase


@given(prompts, prompts)
def test_common_length_of_any_sequences(left: Tokens, right: Tokens) -> None:
    expected = num_shared(left, right)
    assert common_length(left, right) == common_length(list(left), right) == expected


def run_of(length: int, *end: TokenId) -> Tokens:
    return (*range(1000, 1000 + length), *end)


def test_the_last_prompt_token_is_always_computed() -> None:
    index = PrefixIndex(None)
    entry = PrefixEntry(run_of(40), cache_id=1)
    index.add(entry)
    assert index.find(run_of(40)) == PrefixMatch(entry, 39)
    assert index.find(run_of(40, 5)) == PrefixMatch(entry, 40)


@pytest.mark.parametrize("prompt", [(), (1,), run_of(MIN_MATCH), run_of(MIN_MATCH - 1, 5)])
def test_a_short_match_is_none(prompt: Tokens) -> None:
    index = PrefixIndex(None)
    index.add(PrefixEntry(run_of(40), cache_id=1))
    assert index.find(prompt) is None
    assert index.would_cover(prompt) == 0
    assert index.would_cover(run_of(MIN_MATCH, 5)) == MIN_MATCH


@pytest.mark.parametrize(("limit", "covered"), [(None, 30), (41, 30), (40, 0), (0, 0)])
def test_only_a_trimmable_entry_serves_a_part_of_itself(limit: int | None, covered: int) -> None:
    index = PrefixIndex(limit)
    index.add(PrefixEntry(run_of(40), cache_id=1))
    assert index.would_cover(run_of(30, 5)) == covered
    assert index.would_cover(run_of(40)) == (39 if covered else 0)
    assert index.would_cover(run_of(40, 5)) == 40


def test_an_untrimmable_entry_leaves_the_shorter_ones() -> None:
    index = PrefixIndex(30)
    first, second, third = (PrefixEntry(run_of(length), 1) for length in (20, 25, 40))
    assert index.add(first) == []
    assert index.add(second) == [first]
    assert index.add(third) == []
    assert index.would_cover(run_of(38, 5)) == 25
    assert index.add(PrefixEntry(run_of(40), 2)) == [third]


def test_a_trimmable_entry_is_found_beside_an_untrimmable_one() -> None:
    index = PrefixIndex(30)
    short, long = PrefixEntry(run_of(20, 1), 1), PrefixEntry(run_of(20, *range(40)), 2)
    index.add(short)
    index.add(long)
    assert index.find(run_of(20, 3)) == PrefixMatch(short, 20)


def test_memory_wins_over_disk_and_short_over_long() -> None:
    index = PrefixIndex(None)
    saved = PrefixEntry(run_of(40, 1), None, "saved")
    long, short = PrefixEntry(run_of(90), 1), PrefixEntry(run_of(40, 2, 2), 2)
    for entry in (saved, long, short):
        index.add(entry)
    assert index.find(run_of(40, 3)) == PrefixMatch(short, 40)
    index.remove(short)
    assert index.find(run_of(40, 3)) == PrefixMatch(long, 40)
    long.cache_id = None
    assert index.find(run_of(40, 3)) == PrefixMatch(saved, 40)


def test_only_find_and_add_count_as_use() -> None:
    index = PrefixIndex(None)
    first, second = PrefixEntry(run_of(20, 1), 1), PrefixEntry(run_of(20, 2), 2)
    index.add(first)
    index.add(second)
    index.would_cover(run_of(20, 1, 1))
    assert list(index) == [first, second]
    index.find(run_of(20, 1, 1))
    assert list(index) == [second, first]
    index.add(second)
    assert list(index) == [first, second]


def test_entries_may_be_removed_while_iterating() -> None:
    index = PrefixIndex(0)
    for length in range(20, 30):
        index.add(PrefixEntry(run_of(length), 1))
    for entry in index:
        index.remove(entry)
        assert entry not in index
    assert len(index) == 0
    with pytest.raises(KeyError):
        index.remove(PrefixEntry(run_of(20), 1))


class CountingToken(int):
    """A token that counts how often it is compared."""

    num_comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountingToken.num_comparisons += 1
        return int(self) == other

    def __ne__(self, other: object) -> bool:
        CountingToken.num_comparisons += 1
        return int(self) != other

    __hash__ = int.__hash__


@pytest.mark.parametrize("num_common", [0, 4000])
@pytest.mark.parametrize("limit", [None, 0])
def test_a_look_up_reads_few_tokens(num_common: int, limit: int | None) -> None:
    """2,000 entries of 5,000 tokens, that differ at once or late: comparing the prompt with each
    would take up to 10 million comparisons."""
    index = PrefixIndex(limit)
    own = tuple(range(4999 - num_common))
    for number in range(2000):
        index.add(PrefixEntry(run_of(num_common, 10**6 + number, *own), cache_id=number))
    prompt = run_of(num_common, 10**6 + 1500, *own, 3, 3)
    CountingToken.num_comparisons = 0
    match = index.find(tuple(map(CountingToken, prompt)))
    assert match is not None
    assert (match.entry.cache_id, match.num_tokens) == (1500, 5000)
    assert CountingToken.num_comparisons < 2 * len(prompt)


def test_nested_entries_are_no_deep_recursion() -> None:
    index = PrefixIndex(0)
    for length in range(20, 1300):
        index.add(PrefixEntry(run_of(length), length))
    match = index.find(run_of(1200))
    assert match is not None
    assert match.num_tokens == match.entry.cache_id == 1199


@given(st.lists(prompts.filter(bool), min_size=1, max_size=8), limits)
def test_removed_entries_leave_nothing_behind(entries: list[Tokens], limit: int | None) -> None:
    index = PrefixIndex(limit)
    token = 10**9
    before = sys.getrefcount(token)
    for tokens in entries:
        index.add(PrefixEntry((token, *tokens, token), 1))
    for entry in index:
        index.remove(entry)
    del entry
    assert sys.getrefcount(token) == before
