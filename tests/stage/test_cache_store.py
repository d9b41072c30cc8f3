"""Cache operations on a stage's caches, and caches on disk."""

import errno
import os
from pathlib import Path

import mlx.core as mx
import pytest
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    QuantizedKVCache,
    RotatingKVCache,
)

from tbcluster.errors import StageError
from tbcluster.model.caches import Cache, leaves, state_arrays
from tbcluster.model.rows import num_rows, take_row
from tbcluster.stage.cache_store import CacheStore
from tbcluster.wire.operations import (
    CacheOperation,
    CopyCache,
    DropCache,
    ForgetSaved,
    JoinLane,
    KeepRows,
    KeepSaved,
    LoadCache,
    NewCache,
    SaveCache,
    TakeRow,
)

NAME = "0123456789abcdef"


def make_cache() -> list[Cache]:
    return [KVCache(), CacheList(KVCache(), RotatingKVCache(8))]


def make_every_class() -> list[Cache]:
    return [
        KVCache(),
        CacheList(ArraysCache(2), RotatingKVCache(8)),
        ChunkedKVCache(8),
        QuantizedKVCache(group_size=32, bits=4),
        ArraysCache(0),
    ]


def feed(cache: list[Cache], *tokens: float) -> None:
    """Tokens of one sequence, one by one; keys and values are the token."""
    for token in tokens:
        value = mx.full((1, 2, 1, 32), token, mx.float32)
        for entry in leaves(cache):
            if not isinstance(entry, ArraysCache):
                entry.update_and_fetch(value, value)
            elif entry.cache:
                entry[0] = value.astype(mx.bfloat16)
    mx.eval([state_arrays(entry) for entry in cache])


def held(cache: list[Cache]) -> list[float]:
    """The tokens in a cache of one sequence."""
    tokens: list[float] = cache[0].keys_and_values()[0][0, 0, :, 0].tolist()
    return tokens


def store_with(*sequences: tuple[float, ...]) -> CacheStore:
    """Caches 1, 2 ... that saw these tokens."""
    store = CacheStore(make_cache, None)
    for cache_id, tokens in enumerate(sequences, 1):
        store.apply(NewCache(cache_id))
        feed(store.get(cache_id), *tokens)
    return store


def lane_rows(store: CacheStore, lane: int) -> list[list[float]]:
    cache = store.get(lane)
    return [held(take_row(cache, row)) for row in range(num_rows(cache))]


def test_new_and_drop() -> None:
    store = store_with((1,), (2,))
    assert store.num_caches == 2
    store.apply(DropCache(1))
    store.apply(DropCache(1))
    assert store.num_caches == 1
    with pytest.raises(StageError, match="no cache 1 on this stage"):
        store.get(1)
    store.clear()
    assert store.num_caches == 0


def test_copies_are_trimmed_and_independent() -> None:
    store = store_with((1, 2, 3))
    store.apply(CopyCache(2, 1, 1))
    feed(store.get(2), 9)
    assert held(store.get(1)) == [1, 2, 3]
    assert held(store.get(2)) == [1, 2, 9]


def test_a_lane_grows_shrinks_and_is_read() -> None:
    store = store_with((1, 2), (3,), (4, 5, 6))
    store.apply(JoinLane(10, (1,)))
    store.apply(JoinLane(10, (2, 3)))
    assert store.num_caches == 1
    assert lane_rows(store, 10) == [[1, 2], [3], [4, 5, 6]]
    store.apply(TakeRow(4, 10, 1))
    store.apply(KeepRows(10, (2, 0)))
    assert held(store.get(4)) == [3]
    assert lane_rows(store, 10) == [[4, 5, 6], [1, 2]]
    store.apply(KeepRows(10, (1,)))
    store.apply(JoinLane(10, (4,)))
    assert lane_rows(store, 10) == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (CopyCache(5, 9, 0), "no cache 9"),
        (CopyCache(5, 1, 3), "cannot take 3 tokens back"),
        (JoinLane(10, (1, 9)), "no cache 9"),
        (JoinLane(10, (1, 1)), "cannot join"),
        (JoinLane(1, (1,)), "cannot join"),
        (JoinLane(10, ()), "cannot join"),
        (TakeRow(5, 9, 0), "no cache 9"),
        (TakeRow(5, 1, 1), "in a lane of 1"),
        (KeepRows(9, (0,)), "no cache 9"),
        (KeepRows(1, ()), "in a lane of 1"),
        (SaveCache(1, NAME), "saves no caches"),
        (LoadCache(5, NAME), "saves no caches"),
        (ForgetSaved(NAME), "saves no caches"),
        (KeepSaved(()), "saves no caches"),
    ],
)
def test_what_cannot_be_done_changes_nothing(operation: CacheOperation, message: str) -> None:
    store = store_with((1, 2), (3,))
    with pytest.raises(StageError, match=message):
        store.apply(operation)
    assert store.num_caches == 2
    assert held(store.get(1)) == [1, 2]
    assert held(store.get(2)) == [3]


@pytest.mark.parametrize("num_tokens", [0, 3, 20])
def test_every_class_goes_to_disk_and_back(tmp_path: Path, num_tokens: int) -> None:
    store = CacheStore(make_every_class, tmp_path / "saved")
    store.apply(NewCache(1))
    feed(store.get(1), *range(1, num_tokens + 1))
    store.apply(SaveCache(1, NAME))
    store.apply(LoadCache(2, NAME))
    for cache_id in (1, 2):
        feed(store.get(cache_id), 50, 51)
    for kept, loaded in zip(leaves(store.get(1)), leaves(store.get(2)), strict=True):
        assert type(loaded) is type(kept)
        assert_equal(kept, loaded)


def assert_equal(kept: Cache, loaded: Cache) -> None:
    if isinstance(kept, ArraysCache):
        assert [a if a is None else a.tolist() for a in loaded.cache] == (
            [a if a is None else a.tolist() for a in kept.cache]
        )
        return
    assert loaded.offset == kept.offset
    ours, theirs = kept.keys_and_values(), loaded.keys_and_values()
    parts = (
        zip(*ours, *theirs, strict=True)
        if isinstance(kept, QuantizedKVCache)
        else [(*ours, *theirs)]
    )
    for keys, values, loaded_keys, loaded_values in parts:
        assert mx.array_equal(keys, loaded_keys).item()
        assert mx.array_equal(values, loaded_values).item()


def test_a_file_holds_tokens_only_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "saved"
    store = CacheStore(lambda: [KVCache()], folder)
    store.apply(NewCache(1))
    feed(store.get(1), 1, 2, 3)
    store.apply(SaveCache(1, NAME))
    (path,) = folder.iterdir()
    assert path.stat().st_size < 2 * 2 * 3 * 32 * 4 + 1000
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    store.apply(ForgetSaved(NAME))
    store.apply(ForgetSaved(NAME))
    assert list(folder.iterdir()) == []


def test_a_loaded_cache_outlives_its_file(tmp_path: Path) -> None:
    store = CacheStore(make_cache, tmp_path)
    store.apply(NewCache(1))
    feed(store.get(1), 1, 2)
    store.apply(SaveCache(1, NAME))
    store.apply(LoadCache(2, NAME))
    (tmp_path / f"{NAME}.safetensors").write_bytes(b"gone")
    assert held(store.get(2)) == [1, 2]


def saved(folder: Path, name: str = NAME) -> Path:
    store = CacheStore(make_cache, folder)
    store.apply(NewCache(1))
    feed(store.get(1), 1, 2, 3)
    store.apply(SaveCache(1, name))
    return folder / f"{name}.safetensors"


def test_all_but_some_are_deleted(tmp_path: Path) -> None:
    store = CacheStore(make_cache, tmp_path / "saved")
    store.apply(KeepSaved((NAME,)))
    kept, other = saved(tmp_path / "saved"), saved(tmp_path / "saved", NAME[::-1])
    (tmp_path / "saved" / "tmpabc.safetensors").write_bytes(b"of a writer that was killed")
    (tmp_path / "saved" / "notes.txt").write_text("not ours")
    store.apply(KeepSaved((NAME, "a" * 32)))
    assert not other.exists()
    assert {path.name for path in kept.parent.iterdir()} == {kept.name, "notes.txt"}
    store.apply(LoadCache(1, NAME))
    store.apply(KeepSaved(()))
    assert not kept.exists()


def test_a_bad_name_among_others_deletes_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with pytest.raises(StageError, match="is no name of a saved cache"):
        CacheStore(make_cache, tmp_path).apply(KeepSaved(("a" * 32, "..")))
    assert path.exists()


def test_what_cannot_be_deleted_is_said_so(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.safetensors").mkdir()
    store = CacheStore(make_cache, tmp_path)
    for operation in (ForgetSaved(NAME), KeepSaved(())):
        with pytest.raises(StageError, match="cannot be deleted"):
            store.apply(operation)


def test_a_file_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, path.exists()))

    path = tmp_path / f"{NAME}.safetensors"
    monkeypatch.setattr(os, "fsync", fsync)
    saved(tmp_path)
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_file_that_does_not_reach_the_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StageError, match=r"cannot be written to .* no space left"):
        saved(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 4, 100, 600, -1])
def test_a_damaged_file(tmp_path: Path, length: int) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    store = CacheStore(make_cache, tmp_path)
    with pytest.raises(StageError, match=f"no KV cache can be read from {NAME}"):
        store.apply(LoadCache(1, NAME))
    assert store.num_caches == 0


def test_a_changed_byte_is_seen(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    with pytest.raises(StageError, match="its contents are not what was written"):
        CacheStore(make_cache, tmp_path).apply(LoadCache(1, NAME))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no KV cache can be read"):
        CacheStore(make_cache, tmp_path).apply(LoadCache(1, NAME))


def test_a_file_of_other_contents(tmp_path: Path) -> None:
    path = saved(tmp_path)
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    metadata = {"format": "1", "kinds": '["KVCache", "KVCache", "RotatingKVCache"]'}
    for structures in ('[["object", "os:system", []]]', "[]", "{", '[["tuple", 3]]'):
        mx.save_safetensors(str(path), tensors, metadata | {"structures": structures})
        with pytest.raises(StageError, match="no KV cache can be read"):
            CacheStore(make_cache, tmp_path).apply(LoadCache(1, NAME))


def test_a_file_of_another_model(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(StageError, match="written for another model"):
        CacheStore(lambda: [KVCache()], tmp_path).apply(LoadCache(1, NAME))


@pytest.mark.parametrize("name", ["", "abc", "../../abcdef01", "ABCDEF0123", "a" * 65, f"{NAME}\n"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    store = CacheStore(make_cache, tmp_path)
    store.apply(NewCache(1))
    operations = SaveCache(1, name), LoadCache(2, name), ForgetSaved(name), KeepSaved((NAME, name))
    for operation in operations:
        with pytest.raises(StageError, match="is no name of a saved cache"):
            store.apply(operation)
    assert list(tmp_path.iterdir()) == []


def test_a_class_without_a_state_to_set(tmp_path: Path) -> None:
    class LayerCache:
        @property
        def state(self) -> list[mx.array]:
            return []

    store = CacheStore(lambda: [LayerCache()], tmp_path)
    store.apply(NewCache(1))
    with pytest.raises(StageError, match="a LayerCache cannot be saved"):
        store.apply(SaveCache(1, NAME))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = CacheStore(make_cache, tmp_path / "file" / "saved")
    store.apply(NewCache(1))
    with pytest.raises(StageError, match="cannot be written"):
        store.apply(SaveCache(1, NAME))
