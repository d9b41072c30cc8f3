"""Known prefixes on the stages' disks, so that they survive eviction and a restart.

Writing takes a stage's time, so prefixes are written while nothing runs, one at a time.
"""

import logging

from tbcluster.engine.caches import CacheBook
from tbcluster.engine.prefix_index import PrefixEntry
from tbcluster.engine.saved_prefixes import SavedPrefixes, new_name
from tbcluster.wire.operations import CacheOperation, ForgetSaved, SaveCache

logger = logging.getLogger(__name__)


class PrefixDisk:
    """Decides which prefix is written next, and which is deleted for it.

    Args:
        saved: The list of what the stages have on disk; its entries become known prefixes.
    """

    def __init__(self, caches: CacheBook, saved: SavedPrefixes) -> None:
        self._caches = caches
        self._saved = saved
        self._saving: dict[int, tuple[PrefixEntry, str]] = {}
        for entry in saved.entries():
            caches.prefixes.add(entry)

    def next_operations(self) -> tuple[CacheOperation, ...]:
        """Operations that write one more prefix; none when all are written or one is on its way."""
        if self._saving:
            return ()
        entry = self._caches.prefixes.oldest(self._is_unsaved)
        if entry is None or entry.cache_id is None:
            return ()
        return (*self._forget_oldest(self._num_bytes(entry)), SaveCache(entry.cache_id, new_name()))

    def sent(self, step_id: int, operations: tuple[CacheOperation, ...]) -> None:
        """The operations went out with this step."""
        save = operations[-1]
        assert isinstance(save, SaveCache)  # noqa: S101 - as `next_operations` made them
        entries = [e for e in self._caches.prefixes if e.cache_id == save.cache_id]
        self._saving[step_id] = entries[0], save.name

    def completed(self, step_id: int, error: str | None) -> None:
        """The step came back; other steps than those that write are ignored."""
        entry, name = self._saving.pop(step_id, (None, ""))
        if entry is None:
            return
        if error is not None:
            logger.warning("a prefix could not be written to disk: %s", error)
            entry.is_savable = False
        elif entry in self._caches.prefixes:
            entry.saved_as = name
            self._saved.record(entry, self._num_bytes(entry))

    def forget(self, names: list[str]) -> None:
        """The stages were told to delete what they saved under these names."""
        for name in names:
            self._saved.forget(name)

    def clear(self) -> None:
        """What is on its way will not come back."""
        self._saving.clear()

    def close(self) -> None:
        """Let go of the folder."""
        self._saved.close()

    def _is_unsaved(self, entry: PrefixEntry) -> bool:
        return entry.saved_as is None and entry.cache_id is not None and entry.is_savable

    def _num_bytes(self, entry: PrefixEntry) -> int:
        return sum(self._caches.memory.bytes_for(len(entry.tokens)))

    def _forget_oldest(self, num_bytes: int) -> list[CacheOperation]:
        operations: list[CacheOperation] = []
        while self._saved.num_bytes + num_bytes > self._saved.max_bytes:
            entry = self._saved.oldest()
            if entry is None or entry.saved_as is None:
                break
            operations.append(ForgetSaved(entry.saved_as))
            self._saved.forget(entry.saved_as)
            self._caches.leave_disk(entry)
        return operations
