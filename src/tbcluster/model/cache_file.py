"""A sequence's KV cache as a safetensors file: the state that mlx-lm's classes give, and take back.

mlx-lm's own `save_prompt_cache` finds classes by name among its own only, keeps the unused room of
a cache and cannot read an empty one back; here the reader brings fresh caches of the right classes.
"""

import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import mlx.core as mx

from tbcluster.errors import StageError, TbclusterError
from tbcluster.model.boundary import flatten, unflatten
from tbcluster.model.caches import Cache, leaves, state_arrays

FORMAT = "2"
DIGEST_BYTES = 16


def write_cache(path: Path, cache: list[Cache]) -> None:
    """Write a cache of one sequence to `path`, whose name ends in .safetensors and whose folder is
    made if need be. Only this user can read it. Once this returns the file is on the disk, and
    whatever happens before, no part of it is there under its name.

    Raises:
        StageError: A class gives no state that it would take back, or the file cannot be written.
    """
    arrays: list[mx.array] = []
    structures = [flatten(_state(entry), arrays) for entry in leaves(cache)]
    kinds = [type(entry).__name__ for entry in leaves(cache)]
    metadata = {
        "format": FORMAT,
        "kinds": json.dumps(kinds),
        "structures": json.dumps(structures),
        "digest": _digest(arrays),
    }
    tensors = {str(i): array for i, array in enumerate(arrays)}
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _replacing(path) as unfinished:
            mx.save_safetensors(str(unfinished), tensors, metadata)
    except (OSError, RuntimeError, ValueError) as error:
        raise StageError(f"a KV cache cannot be written to {path.parent}: {error}") from error


def read_cache(path: Path, make_cache: Callable[[], list[Cache]]) -> list[Cache]:
    """The cache that `write_cache` wrote, computed, in entries of the classes of `make_cache`.

    Raises:
        StageError: The file is missing or damaged, or belongs to another model.
    """
    cache = make_cache()
    try:
        loaded: Any = mx.load(str(path), return_metadata=True)
        tensors, metadata = loaded
        arrays = [tensors[str(i)] for i in range(len(tensors))]
        if metadata["digest"] != _digest(arrays):
            raise ValueError("its contents are not what was written")
        _fill(list(leaves(cache)), metadata, arrays)
        mx.eval([state_arrays(entry) for entry in cache])
    # A damaged file may hold anything: each of these comes from its contents.
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, TbclusterError) as error:
        raise StageError(f"no KV cache can be read from {path.name}: {error}") from error
    return cache


def _digest(arrays: list[mx.array]) -> str:
    """Of all bytes: a changed one would give fluent wrong answers."""
    digest = blake2b(digest_size=DIGEST_BYTES)
    for array in arrays:
        bits: Any = mx.contiguous(array.reshape(-1)).view(mx.uint8) if array.size else b""
        digest.update(memoryview(bits))
    return digest.hexdigest()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Another file beside `path` to write to, which takes its place once it is on the disk."""
    handle, name = tempfile.mkstemp(suffix=path.suffix, dir=path.parent)
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        # Before the new name is: after a power loss it could stand for a file of zeros.
        _sync(unfinished)
        unfinished.replace(path)
        _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(entries: list[Cache], metadata: dict[str, str], arrays: list[mx.array]) -> None:
    kinds = [type(entry).__name__ for entry in entries]
    if metadata.get("format") != FORMAT or json.loads(metadata["kinds"]) != kinds:
        raise StageError("it was written for another model or by another version")
    for entry, structure in zip(entries, json.loads(metadata["structures"]), strict=True):
        entry.state = unflatten(structure, arrays)


def _state(entry: Cache) -> Any:
    if getattr(type(entry).state, "fset", None) is None:
        raise StageError(f"a {type(entry).__name__} cannot be saved")
    return _without_room(entry).state


def _without_room(entry: Cache) -> Cache:
    """The cache without the room it has for tokens to come."""
    if getattr(entry, "keys", None) is None:
        return entry
    trimmed = copy.copy(entry)
    trimmed.keys, trimmed.values = entry.keys_and_values()
    return trimmed
