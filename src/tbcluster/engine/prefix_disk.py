"""Known prefixes on the stages' disks, so that they survive eviction and a restart.

Writing takes a stage's time, so prefixes are written while nothing runs, one at a time.
"""

import logging
from collections.abc import Iterable

from tbcluster.engine.caches import CacheBook
from tbcluster.engine.prefix_index import PrefixEntry
from tbcluster.engine.saved_prefixes import SavedPrefixes, new_name
from tbcluster.wire.operations import CacheOperation, ForgetSaved, KeepSaved, SaveCache

logger = logging.getLogger(__name__)


class PrefixDisk:
    """Decides which prefix is written next, and which are deleted for it.

    Args:
        saved: The list of what the stages have on disk; its entries become known prefixes.
    """

    def __init__(self, caches: CacheBook, saved: SavedPrefixes) -> None:
        self._caches = caches
        self._saved = saved
        self._saving: dict[int, tuple[PrefixEntry, str]] = {}
        # The stages may have files of earlier epochs or runs that the list does not know.
        self._must_sweep = True
        for entry in saved.entries():
            superfluous = caches.prefixes.add(entry)
            self.forget(known.saved_as for known in superfluous if known.saved_as is not None)

    def next_operations(self) -> tuple[CacheOperation, ...]:
        """What to tell the stages next, in a step of its own: delete what the list does not name,
        then write one more prefix; nothing when all are written or one is on its way.

        Call it while nothing runs, and `sent` when they went out: it writes the list, too.
        """
        self._saved.flush()
        if self._must_sweep:
            return (KeepSaved(self._saved.names),)
        entry = None if self._saving else self._caches.prefixes.oldest(self._is_worth_saving)
        if entry is None or entry.cache_id is None:
            return ()
        names = self._names_in_the_way(self._num_bytes(entry))
        return (*map(ForgetSaved, names), SaveCache(entry.cache_id, new_name()))

    def sent(self, step_id: int, operations: tuple[CacheOperation, ...]) -> None:
        """The operations, which `next_operations` gave, went out with this step."""
        for operation in operations:
            match operation:
                case KeepSaved():
                    self._must_sweep = False
                case ForgetSaved(name):
                    self._give_up(name)
                case SaveCache(cache_id, name):
                    self._saving[step_id] = self._entry_in(cache_id), name

    def completed(self, step_id: int, error: str | None) -> None:
        """The step came back; other steps than those that write are ignored."""
        entry, name = self._saving.pop(step_id, (None, ""))
        if entry is None:
            return
        if error is not None:
            logger.warning("a prefix could not be written to disk: %s", error)
            entry.is_savable = False
            # Some stages may have written their part.
            self._caches.delete_saved(name)
        elif entry in self._caches.prefixes:
            entry.saved_as = name
            self._saved.record(entry, self._num_bytes(entry))
        else:
            self._caches.delete_saved(name)

    def forget(self, names: Iterable[str]) -> None:
        """The stages were told to delete what they saved under these names."""
        self._saved.forget(names)

    def clear(self) -> None:
        """What is on its way will not come back, nor is it known what the stages did of it."""
        self._saving.clear()
        self._must_sweep = True

    def close(self) -> None:
        """Write the list and let go of the folder."""
        self._saved.close()

    def _entry_in(self, cache_id: int) -> PrefixEntry:
        return next(e for e in self._caches.prefixes if e.cache_id == cache_id)

    def _give_up(self, name: str) -> None:
        entry = next(e for e in self._caches.prefixes if e.saved_as == name)
        self._saved.forget([name])
        self._caches.leave_disk(entry)

    def _is_worth_saving(self, entry: PrefixEntry) -> bool:
        is_unsaved = entry.saved_as is None and entry.cache_id is not None and entry.is_savable
        return is_unsaved and self._num_bytes(entry) <= self._saved.max_bytes

    def _num_bytes(self, entry: PrefixEntry) -> int:
        return sum(self._caches.memory.bytes_for(len(entry.tokens)))

    def _names_in_the_way(self, num_bytes: int) -> list[str]:
        """What must leave the disk before so much more is written: what was used longest ago."""
        excess = self._saved.num_bytes + num_bytes - self._saved.max_bytes
        names: list[str] = []
        for entry in self._caches.prefixes:
            if excess <= 0:
                break
            if entry.saved_as is not None:
                names.append(entry.saved_as)
                excess -= self._saved.num_bytes_of(entry.saved_as)
        return names
