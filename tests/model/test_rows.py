"""Joining, leaving, copying and trimming caches; `test_golden_batch` shows that models agree."""

import gc
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import (
    ArraysCache,
    BatchKVCache,
    BatchRotatingKVCache,
    CacheList,
    ChunkedKVCache,
    ConcatenateKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
)

from tbcluster.errors import StageError
from tbcluster.model.caches import Cache, advance_ghost, leaves, state_arrays
from tbcluster.model.rows import (
    can_batch,
    copy_cache,
    extend_rows,
    keep_rows,
    max_trimmable_tokens,
    merge_rows,
    num_rows,
    take_row,
    trim_cache,
)

WINDOW = 8


def feed(cache: list[Cache], *values: float) -> None:
    """One more token for each row, whose keys and values are all `value`."""
    token = mx.broadcast_to(mx.array(values).reshape(-1, 1, 1, 1), (len(values), 2, 1, 4))
    for entry in leaves(cache):
        if isinstance(entry, ArraysCache):
            entry[0] = mx.array(values).reshape(-1, 1)
        else:
            entry.update_and_fetch(token, -token)
    mx.eval([state_arrays(entry) for entry in cache])


def single(*values: float) -> list[Cache]:
    """A cache of one sequence that saw these tokens."""
    cache = [KVCache(), CacheList(ArraysCache(1), RotatingKVCache(WINDOW))]
    for value in values:
        feed(cache, value)
    return cache


def contents(cache: list[Cache]) -> tuple[list[float], list[float], float | None]:
    """What a cache of one sequence holds: all keys, the window's keys, the state."""
    full, (state, window) = cache[0], cache[1].caches
    newest = state[0].item() if state[0] is not None else None
    return first_values(full), sorted(first_values(window)), newest


def first_values(entry: Cache) -> list[float]:
    if entry.keys is None:
        return []
    keys, values = entry.keys_and_values()
    assert mx.array_equal(keys, -values).item()
    held: list[float] = keys[0, 0, :, 0].tolist()
    return held


def kinds(cache: list[Cache]) -> set[type]:
    return {type(entry) for entry in leaves(cache)}


def model_with(*caches: Cache, module: str = "mlx_lm.models.llama") -> Any:
    cls = type("Model", (SimpleNamespace,), {"__module__": module})
    return cls(make_cache=lambda: list(caches))


def test_a_lane_of_one_row_is_a_plain_cache() -> None:
    cache = single(1, 2)
    assert merge_rows([cache]) is cache
    lane = merge_rows([cache, single(3)])
    assert kinds(lane) == {BatchKVCache, ArraysCache, BatchRotatingKVCache}
    assert num_rows(lane) == 2
    kept = keep_rows(lane, (1,))
    assert kinds(kept) == {KVCache, ArraysCache, RotatingKVCache}
    assert contents(kept) == ([3], [3], 3)
    assert contents(extend_rows(kept, [])) == ([3], [3], 3)


def test_rows_join_decode_and_leave() -> None:
    lane = merge_rows([single(1, 2, 3), single(10)])
    feed(lane, 4, 11)
    lane = extend_rows(lane, [single(20, 21), single()])
    assert num_rows(lane) == 4
    feed(lane, 5, 12, 22, 30)
    lane = keep_rows(lane, (3, 1, 2))
    feed(lane, 31, 13, 23)
    held = [contents(take_row(lane, row))[0] for row in range(3)]
    assert held == [[30, 31], [10, 11, 12, 13], [20, 21, 22, 23]]


def test_windows_hold_the_newest_tokens_of_each_row() -> None:
    long = [float(i) for i in range(1, 12)]
    lane = merge_rows([single(*long), single(50)])
    for step in range(5):
        feed(lane, 12 + step, 51 + step)
    assert contents(take_row(lane, 0))[1] == [float(i) for i in range(16 - WINDOW + 1, 17)]
    assert contents(take_row(lane, 1))[1] == [50, 51, 52, 53, 54, 55]


def test_rows_that_saw_no_token_join() -> None:
    lane = extend_rows(merge_rows([single(), single()]), [single(7)])
    empty = take_row(lane, 0)
    assert contents(empty)[0] == []
    feed(lane, 1, 2, 8)
    assert contents(take_row(lane, 1)) == ([2], [2], 2)
    assert contents(take_row(lane, 2)) == ([7, 8], [7, 8], 8)


def test_a_row_of_a_lane_that_saw_no_token() -> None:
    empty = take_row(merge_rows([single(), single()]), 1)
    feed(empty, 1)
    assert contents(empty) == ([1], [1], 1)


@pytest.mark.parametrize("rows", [(), (2,), (-1,), (0, 5)])
def test_rows_that_are_not_there(rows: tuple[int, ...]) -> None:
    lane = merge_rows([single(1), single(2)])
    with pytest.raises(StageError, match="in a lane of 2"):
        keep_rows(lane, rows)
    assert num_rows(lane) == 2


def test_what_comes_out_does_not_share_writes() -> None:
    lane = merge_rows([single(1, 2), single(3)])
    row, copied, longer = take_row(lane, 0), copy_cache(lane), extend_rows(lane, [single(9)])
    feed(lane, 4, 5)
    feed(row, 100)
    feed(copied, 101, 102)
    feed(longer, 103, 104, 105)
    assert contents(take_row(lane, 0)) == ([1, 2, 4], [1, 2, 4], 4)
    assert contents(row) == ([1, 2, 100], [1, 2, 100], 100)
    assert contents(take_row(copied, 1)) == ([3, 102], [3, 102], 102)
    assert contents(take_row(longer, 2)) == ([9, 105], [9, 105], 105)


def test_a_copy_and_its_source_go_on_by_themselves() -> None:
    source = single(1, 2)
    copied = copy_cache(source)
    feed(copied, 3)
    feed(source, 4)
    assert contents(source) == ([1, 2, 4], [1, 2, 4], 4)
    assert contents(copied) == ([1, 2, 3], [1, 2, 3], 3)


def test_states_that_are_written_in_place_are_not_shared() -> None:
    source = ArraysCache(1)
    source[0] = mx.zeros((1, 3))
    (copied,) = copy_cache([source])
    copied[0][0, 1] = 5
    copied.cache.append(None)
    assert source[0].tolist() == [[0, 0, 0]]
    assert len(source.cache) == 1


def big(num_tokens: int) -> list[Cache]:
    """A KV cache of 1 MiB per 256 tokens, and a state of 1 MiB."""
    full, state = KVCache(), ArraysCache(1)
    token = mx.ones((1, 1, num_tokens, 512))
    full.update_and_fetch(token, token)
    state[0] = mx.ones((1, 1 << 18))
    mx.eval(full.state, state.state)
    return [full, state]


def num_mebibytes() -> float:
    gc.collect()
    mx.synchronize()
    return mx.get_active_memory() / (1 << 20)


def test_what_rows_came_from_is_freed() -> None:
    before = num_mebibytes()
    lane = merge_rows([big(256), big(256)])
    assert num_mebibytes() - before == pytest.approx(4, abs=0.1)
    lane = extend_rows(lane, [big(256)])
    assert num_mebibytes() - before == pytest.approx(6, abs=0.1)
    row = take_row(lane, 1)
    assert num_mebibytes() - before == pytest.approx(8, abs=0.1)
    lane = keep_rows(lane, (0, 2))
    assert num_mebibytes() - before == pytest.approx(6, abs=0.1)
    lane = keep_rows(lane, (1,))
    assert num_mebibytes() - before == pytest.approx(4, abs=0.1)
    del lane, row
    assert num_mebibytes() - before == pytest.approx(0, abs=0.1)


def test_a_copy_takes_no_memory() -> None:
    cache = big(256)
    before = num_mebibytes()
    copied = copy_cache(cache)
    assert num_mebibytes() - before == pytest.approx(0, abs=0.1)
    assert copied[0].offset == 256


def test_ghosts_follow_their_lane() -> None:
    singles: list[list[Cache]] = []
    for num_tokens in (3, 1, 10):
        ghosts = [KVCache(), RotatingKVCache(WINDOW), CacheList(ArraysCache(1), KVCache())]
        for ghost in ghosts:
            advance_ghost(ghost, 1, num_tokens)
        singles.append(ghosts)
    lane = extend_rows(merge_rows(singles[:2]), singles[2:])
    for ghost in lane:
        advance_ghost(ghost, 3, 1)
    assert [entry.offset.tolist() for entry in leaves(lane) if hasattr(entry, "offset")] == (
        [[4, 2, 11]] * 3
    )
    assert take_row(lane, 2)[1].offset == 11


def test_trimming_takes_back_the_newest_tokens() -> None:
    cache: list[Cache] = [KVCache(), CacheList(KVCache(), RotatingKVCache(WINDOW))]
    for value in (1, 2, 3, 4):
        feed(cache, value)
    trim_cache(cache, 2)
    feed(cache, 9)
    assert [first_values(entry) for entry in leaves(cache)] == [[1, 2, 9]] * 3


@pytest.mark.parametrize("values", [[1, 2], range(WINDOW), range(WINDOW + 3)])
def test_a_window_past_its_size_is_not_trimmed(values: list[float]) -> None:
    cache: list[Cache] = [KVCache(), RotatingKVCache(WINDOW)]
    for value in values:
        feed(cache, value)
    if len(values) < WINDOW:
        trim_cache(cache, 1)
    else:
        with pytest.raises(StageError, match="take 1 tokens back out of a RotatingKVCache"):
            trim_cache(cache, 1)
    assert cache[0].offset == len(values) - (len(values) < WINDOW)


def test_a_window_filled_in_chunks_gives_up_its_newest_tokens() -> None:
    cache = RotatingKVCache(WINDOW)
    for chunk in (mx.arange(3.0), mx.arange(3.0, 7.0)):
        keys = chunk.reshape(1, 1, -1, 1)
        cache.update_and_fetch(keys, -keys)
    trim_cache([cache], 4)
    late = mx.full((1, 1, 1, 1), 50.0)
    cache.update_and_fetch(late, -late)
    assert first_values(cache) == [0, 1, 2, 50]


@pytest.mark.parametrize(
    "cache",
    [ArraysCache(1), ConcatenateKVCache(), CacheList(KVCache(), ArraysCache(1)), BatchKVCache([0])],
)
def test_classes_that_give_nothing_back(cache: Cache) -> None:
    with pytest.raises(StageError, match="cannot take 1 tokens back"):
        trim_cache([cache], 1)
    trim_cache([cache], 0)


def test_more_tokens_than_there_are() -> None:
    cache = single(1, 2)[:1]
    with pytest.raises(StageError, match="cannot take 3 tokens back"):
        trim_cache(cache, 3)
    assert contents([*cache, CacheList(ArraysCache(1), RotatingKVCache(2))])[0] == [1, 2]


@pytest.mark.parametrize(
    ("caches", "limit"),
    [
        ([KVCache(), CacheList(QuantizedKVCache())], None),
        ([KVCache(), RotatingKVCache(64), CacheList(RotatingKVCache(32))], 32),
        ([ChunkedKVCache(16), RotatingKVCache(64)], 16),
        ([KVCache(), CacheList(ArraysCache(2), KVCache())], 0),
        ([object()], 0),
    ],
)
def test_max_trimmable_tokens(caches: list[Cache], limit: int | None) -> None:
    assert max_trimmable_tokens(model_with(*caches)) == limit


@pytest.mark.parametrize(
    ("caches", "expected"),
    [
        ([KVCache(), CacheList(ArraysCache(2), RotatingKVCache(8))], True),
        ([KVCache(), CacheList(QuantizedKVCache())], False),
        ([ChunkedKVCache(16)], False),
        ([RotatingKVCache(64, keep=4)], False),
        ([object()], False),
    ],
)
def test_can_batch(caches: list[Cache], expected: bool) -> None:
    assert can_batch(model_with(*caches)) is expected


def test_architectures_that_run_alone() -> None:
    assert not can_batch(model_with(KVCache(), module="mlx_lm.models.minimax_m3_vl"))
