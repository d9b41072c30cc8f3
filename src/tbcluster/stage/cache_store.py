"""The KV caches and lanes of a stage, by id, and what each cache operation does to them."""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from tbcluster.errors import StageError
from tbcluster.model.cache_file import read_cache, write_cache
from tbcluster.model.caches import Cache
from tbcluster.model.rows import (
    copy_cache,
    extend_rows,
    keep_rows,
    merge_rows,
    take_row,
    trim_cache,
)
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

_NAME = re.compile(r"[0-9a-f]{8,64}")


class CacheStore:
    """Holds the caches; an operation that fails leaves them as they were.

    Args:
        make_cache: Makes an empty cache for one sequence.
        saved_folder: Where caches are saved, readable by this user only; None for nowhere.
    """

    def __init__(self, make_cache: Callable[[], list[Cache]], saved_folder: Path | None) -> None:
        self._make_cache = make_cache
        self._saved_folder = saved_folder
        self._caches: dict[int, list[Cache]] = {}

    @property
    def num_caches(self) -> int:
        """How many caches and lanes there are."""
        return len(self._caches)

    def get(self, cache_id: int) -> list[Cache]:
        """The cache or lane of this id.

        Raises:
            StageError: There is none.
        """
        if cache_id not in self._caches:
            raise StageError(f"no cache {cache_id} on this stage")
        return self._caches[cache_id]

    def clear(self) -> None:
        """Free everything that is held in memory."""
        self._caches.clear()

    def apply(self, operation: CacheOperation) -> None:
        """Do what the operation says.

        Raises:
            StageError: It names a cache, row or file that is not there, or cannot be done.
        """
        match operation:
            case NewCache(cache_id):
                self._caches[cache_id] = self._make_cache()
            case CopyCache(cache_id, source, num_trimmed):
                self._caches[cache_id] = self._copied(source, num_trimmed)
            case JoinLane(cache_id, sources):
                self._join(cache_id, sources)
            case TakeRow(cache_id, lane, row):
                self._caches[cache_id] = take_row(self.get(lane), row)
            case KeepRows(cache_id, rows):
                self._caches[cache_id] = keep_rows(self.get(cache_id), rows)
            case DropCache(cache_id):
                self._caches.pop(cache_id, None)
            case SaveCache(cache_id, name):
                self._save(cache_id, name)
            case LoadCache(cache_id, name):
                self._caches[cache_id] = read_cache(self._path(name), self._make_cache)
            case ForgetSaved(name):
                self._path(name).unlink(missing_ok=True)

    def _copied(self, source: int, num_trimmed: int) -> list[Cache]:
        cache = copy_cache(self.get(source))
        trim_cache(cache, num_trimmed)
        return cache

    def _join(self, lane_id: int, sources: tuple[int, ...]) -> None:
        singles = [self.get(source) for source in sources]
        if lane_id in sources or len(set(sources)) < max(1, len(sources)):
            raise StageError(f"caches {sources} cannot join lane {lane_id}")
        lane = self._caches.get(lane_id)
        joined = merge_rows(singles) if lane is None else extend_rows(lane, singles)
        for source in sources:
            del self._caches[source]
        self._caches[lane_id] = joined

    def _save(self, cache_id: int, name: str) -> None:
        cache, path = self.get(cache_id), self._path(name)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(suffix=path.suffix, dir=path.parent)
        except OSError as error:
            raise StageError(f"a KV cache cannot be written to {path.parent}: {error}") from error
        os.close(handle)
        try:
            write_cache(Path(unfinished), cache)
            os.replace(unfinished, path)
        finally:
            Path(unfinished).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if self._saved_folder is None:
            raise StageError("this stage saves no caches")
        if not _NAME.fullmatch(name):
            raise StageError(f"{name!r} is no name of a saved cache")
        return self._saved_folder / f"{name}.safetensors"
