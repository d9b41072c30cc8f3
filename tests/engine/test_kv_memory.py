"""The account of KV memory against one that counts each token, and against mlx-lm's own caches."""

from dataclasses import dataclass

import mlx.core as mx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from mlx_lm.models.cache import KVCache

from tbcluster.core import KV_BLOCK_TOKENS, CacheCost
from tbcluster.engine.kv_memory import MAX_CAPACITY_TOKENS, KvMemory

costs = st.builds(
    CacheCost,
    fixed_bytes=st.sampled_from([0, 0, 1, 100, 5000]),
    bytes_per_token=st.sampled_from([0, 1, 2, 7]),
    window=st.none() | st.sampled_from([1, 100, 256, 257, 1000]),
)
stages = st.lists(st.lists(costs, max_size=3), min_size=1, max_size=3)
lengths = st.integers(0, 2000) | st.sampled_from([0, 1, 255, 256, 257, 512, 513])
row_counts = st.integers(1, 4)
budgets = st.integers(0, 30_000)


def slow_bytes(stage: list[CacheCost], num_tokens: int, num_rows: int = 1) -> int:
    """Room for one token after the other, and for two blocks less two ahead, in whole blocks."""
    total = 0
    for cost in stage:
        for _ in range(num_rows):
            num_held = 0
            while num_held < num_tokens + 255 + 255:
                num_held += 256
            if cost.window is not None and num_held > cost.window:
                num_held = cost.window
            total += cost.fixed_bytes + sum(cost.bytes_per_token for _ in range(num_held))
    return total


@given(stages, lengths, row_counts)
def test_bytes_equal_the_slow_count(
    stages: list[list[CacheCost]], num_tokens: int, num_rows: int
) -> None:
    memory = KvMemory(stages, [0] * len(stages))
    expected = tuple(slow_bytes(stage, num_tokens, num_rows) for stage in stages)
    assert memory.bytes_for(num_tokens, num_rows) == expected
    assert memory.bytes_for(num_tokens, num_rows) == expected  # remembered by now


@pytest.mark.parametrize(
    ("num_tokens", "num_rows", "expected"),
    [
        (1, 1, (1024, 10 + 300)),
        (2, 1, (1024, 10 + 300)),
        (3, 1, (1536, 10 + 300)),
        (258, 1, (1536, 10 + 300)),
        (259, 1, (2048, 10 + 300)),
        (300, 3, (3 * 2048, 3 * (10 + 300))),
    ],
)
def test_bytes_by_hand(num_tokens: int, num_rows: int, expected: tuple[int, int]) -> None:
    attention, state, sliding = CacheCost(0, 2), CacheCost(10, 0), CacheCost(0, 3, window=100)
    memory = KvMemory([[attention], [state, sliding]], [0, 0])
    assert memory.bytes_for(num_tokens, num_rows) == expected


@example([255, 257, 257])  # 510 tokens ahead of need
@given(st.lists(st.sampled_from([1, 1, 1, 2, 60, 255, 256, 257, 700]), min_size=1, max_size=9))
def test_mlx_lms_caches_never_hold_more(chunks: list[int]) -> None:
    """Whatever the chunks that tokens came in: a cache grows by blocks from where it was, and keeps
    the room it has there if that is at the end of a block."""
    cache = KVCache()
    assert cache.step == KV_BLOCK_TOKENS
    memory = KvMemory([[CacheCost(0, 2)]], [0])
    for chunk in chunks:
        cache.update_and_fetch(*(mx.zeros((1, 1, chunk, 1), mx.uint8),) * 2)
        # Its buffers have the shape of all the room there is, filled or not.
        held = cache.keys.nbytes + cache.values.nbytes
        counted = memory.bytes_for(cache.offset)[0]
        assert held <= counted < held + 3 * 2 * KV_BLOCK_TOKENS


def test_a_block_less_would_not_be_enough() -> None:
    cache = KVCache()
    for chunk in (255, 257, 257):
        cache.update_and_fetch(*(mx.zeros((1, 1, chunk, 1), mx.uint8),) * 2)
    assert cache.keys.shape[2] == cache.offset + 2 * (KV_BLOCK_TOKENS - 1)
    (counted,) = KvMemory([[CacheCost(0, 1)]], [0]).bytes_for(cache.offset)
    assert counted - KV_BLOCK_TOKENS < cache.keys.nbytes <= counted


@given(stages, st.data())
def test_the_capacity_is_the_longest_that_fits(
    stages: list[list[CacheCost]], data: st.DataObject
) -> None:
    limits = data.draw(st.lists(budgets, min_size=len(stages), max_size=len(stages)))
    memory = KvMemory(stages, limits)
    capacity = memory.capacity_tokens()

    def fits(num_tokens: int) -> bool:
        sizes = (slow_bytes(stage, num_tokens) for stage in stages)
        return all(size <= limit for size, limit in zip(sizes, limits, strict=True))

    if capacity == MAX_CAPACITY_TOKENS:
        assert fits(100_000)
    else:
        assert capacity <= 30_000
        assert capacity == 0 or fits(capacity)
        assert not fits(capacity + 1)


def test_a_cache_that_does_not_grow_has_no_longest() -> None:
    window, state = CacheCost(0, 8, window=768), CacheCost(100, 0)
    assert KvMemory([[window], [state]], [8 * 768, 100]).capacity_tokens() == MAX_CAPACITY_TOKENS
    assert KvMemory([[window], [state]], [8 * 768 - 1, 100]).capacity_tokens() == 2
    assert KvMemory([[window], [state]], [8 * 768, 99]).capacity_tokens() == 0
    assert KvMemory([[]], [0]).capacity_tokens() == MAX_CAPACITY_TOKENS


def test_the_tightest_stage() -> None:
    first, second = [CacheCost(0, 1)], [CacheCost(0, 4)]
    memory = KvMemory([first, second], [1256, 4024])
    assert memory.tightest_stage(2) == 0  # 744 and 1976 are left
    assert memory.tightest_stage(258) == 0  # 488 and 952
    assert memory.tightest_stage(514) == 1  # 232 and -72
    assert KvMemory([first, second, []], [1256, 4024, 0]).tightest_stage(1) == 2


@dataclass(frozen=True)
class Held:
    num_tokens: int
    num_rows: int


class MemoryMachine(RuleBasedStateMachine):
    """Does the same to the account and to a dictionary of what is held."""

    @initialize(
        stages=st.lists(st.lists(costs, max_size=2), min_size=1, max_size=3), budget=budgets
    )
    def begin(self, stages: list[list[CacheCost]], budget: int) -> None:
        self.stages = stages
        # Different ones, so that each stage is the tight one at times.
        self.budgets = [budget * (number + 1) for number in range(len(stages))]
        self.memory = KvMemory(stages, self.budgets)
        self.held: dict[int, Held] = {}

    def used(self, held: dict[int, Held]) -> tuple[int, ...]:
        return tuple(
            sum(slow_bytes(stage, each.num_tokens, each.num_rows) for each in held.values())
            for stage in self.stages
        )

    @rule(cache_id=st.integers(0, 4), num_tokens=lengths, num_rows=row_counts)
    def hold(self, cache_id: int, num_tokens: int, num_rows: int) -> None:
        self.memory.hold(cache_id, num_tokens, num_rows)
        self.held[cache_id] = Held(num_tokens, num_rows)

    @rule(cache_id=st.integers(0, 6))
    def release(self, cache_id: int) -> None:
        before = self.held.pop(cache_id, None)
        alone = {} if before is None else {cache_id: before}
        assert self.memory.release(cache_id) == self.used(alone)

    @rule(cache_id=st.integers(0, 4))
    def release_and_restore(self, cache_id: int) -> None:
        if cache_id in self.held:
            self.memory.restore(cache_id, self.memory.release(cache_id))

    @rule()
    def clear(self) -> None:
        self.memory.clear()
        self.held.clear()

    @rule(
        others=st.lists(st.integers(0, 6), max_size=4),
        num_tokens=lengths,
        num_rows=row_counts,
        instead_of=st.none() | st.integers(0, 6),
    )
    def ask(
        self, others: list[int], num_tokens: int, num_rows: int, instead_of: int | None
    ) -> None:
        def would_fit(gone: set[int | None]) -> bool:
            left = {cache_id: held for cache_id, held in self.held.items() if cache_id not in gone}
            used = self.used({**left, -1: Held(num_tokens, num_rows)})
            return all(size <= budget for size, budget in zip(used, self.budgets, strict=True))

        assert self.memory.fits(num_tokens, num_rows, instead_of) is would_fit({instead_of})
        answer = self.memory.fits_without(iter(others), num_tokens, num_rows, instead_of)
        assert answer is would_fit({*others, instead_of})

    @invariant()
    def the_sums_are_right(self) -> None:
        if not hasattr(self, "memory"):
            return
        used = self.used(self.held)
        assert self.memory.used == used
        assert self.memory.budgets == tuple(self.budgets)
        assert self.memory.is_over is any(
            size > budget for size, budget in zip(used, self.budgets, strict=True)
        )


TestMemoryMachine = MemoryMachine.TestCase
