"""The KV caches and lanes of a stage, by id, and what each cache operation does to them."""

import re
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
    KeepSaved,
    LoadCache,
    NewCache,
    SaveCache,
    TakeRow,
)

_SUFFIX = ".safetensors"
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
                write_cache(self._path(name), self.get(cache_id))
            case LoadCache(cache_id, name):
                self._caches[cache_id] = read_cache(self._path(name), self._make_cache)
            case ForgetSaved(name):
                _delete(self._path(name))
            case KeepSaved(names):
                self._keep_saved(names)

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

    def _keep_saved(self, names: tuple[str, ...]) -> None:
        kept = {self._path(name) for name in names}
        # With what writers that were killed have left: their files end like all others.
        for path in self._folder().glob(f"*{_SUFFIX}"):
            if path not in kept:
                _delete(path)

    def _path(self, name: str) -> Path:
        folder = self._folder()
        if not _NAME.fullmatch(name):
            raise StageError(f"{name!r} is no name of a saved cache")
        return folder / f"{name}{_SUFFIX}"

    def _folder(self) -> Path:
        if self._saved_folder is None:
            raise StageError("this stage saves no caches")
        return self._saved_folder


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StageError(f"a saved KV cache cannot be deleted: {error}") from error
