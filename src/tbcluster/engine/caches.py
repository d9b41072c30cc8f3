"""The coordinator's account of every cache that the stages hold. Pure.

Each change is noted here as bytes and as an operation; the operations travel with the next step, in
the order they were noted, so that all stages hold the same caches at the same step.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

from tbcluster.core import LogitRules, TokenId
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.prefix_index import MIN_MATCH, PrefixEntry, PrefixIndex, PrefixMatch
from tbcluster.wire.operations import (
    CacheOperation,
    CopyCache,
    DropCache,
    DropRules,
    ForgetSaved,
    JoinLane,
    KeepRows,
    LoadCache,
    NewCache,
    NewRules,
    TakeRow,
)


@dataclass(frozen=True, slots=True)
class StartedCache:
    """A cache for a sequence that starts: it holds `num_tokens` already, from `prefix`."""

    cache_id: int
    num_tokens: int
    prefix: PrefixEntry | None


class CacheBook:
    """Notes caches of sequences, lanes and prefixes, and makes room by letting go of the prefixes
    that were not used for longest.

    Args:
        reuses_prefixes: False where no prompt may start from a known prefix.

    Attributes:
        num_freed: Grows whenever there may be more room than before.
    """

    def __init__(
        self, memory: KvMemory, prefixes: PrefixIndex, *, reuses_prefixes: bool = True
    ) -> None:
        self.memory = memory
        self.prefixes = prefixes
        self._reuses_prefixes = reuses_prefixes
        self._operations: list[CacheOperation] = []
        self._forgotten: list[str] = []
        self._next_id = 0
        self.num_freed = 0

    @property
    def num_stages(self) -> int:
        return len(self.memory.budgets)

    def take_operations(self) -> tuple[CacheOperation, ...]:
        """What the stages have yet to be told."""
        operations = tuple(self._operations)
        self._operations.clear()
        return operations

    def take_forgotten(self) -> list[str]:
        """Names that the stages were told to delete from their disks since the last time."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def clear(self) -> None:
        """The stages have lost or dropped everything they held in memory."""
        # Disks are as they were.
        self._operations = [op for op in self._operations if isinstance(op, ForgetSaved)]
        self.num_freed += 1
        self.memory.clear()
        for entry in list(self.prefixes):
            self._leave_memory(entry)

    # Sequences

    def start(
        self, tokens: Items[TokenId], *, uses_prefixes: bool, num_new: int = 1
    ) -> StartedCache | None:
        """A cache with room for `tokens` and `num_new` more, from the best known prefix; None when
        it has no room now."""
        match = self._find_prefix(tokens) if uses_prefixes and self._reuses_prefixes else None
        source = match.entry if match is not None else None
        if not self._make_room(len(tokens) + num_new, source):
            return None
        cache_id = self._new_id()
        if match is not None:
            self._copy_prefix(match, cache_id)
        else:
            self._operations.append(NewCache(cache_id))
        self.memory.hold(cache_id, len(tokens) + num_new)
        self.evict_while_over()
        return StartedCache(cache_id, match.num_tokens if match is not None else 0, source)

    def drop(self, cache_id: int) -> None:
        """A sequence or a lane is over."""
        self.num_freed += 1
        self._operations.append(DropCache(cache_id))
        self.memory.release(cache_id)

    # Logit rules: no caches, but told to the stages in the same order

    def new_rules(
        self, rules: LogitRules, prompt: Items[TokenId], generated: Items[TokenId]
    ) -> int:
        """Let the last stage keep the state of a sequence's rules; the prompt goes along as far as
        they look at it."""
        rules_id = self._new_id()
        looked_at = () if rules.repetition_penalty == 1 else tuple(prompt)
        if rules.repetition_context is not None:
            looked_at = looked_at[-rules.repetition_context :]
        self._operations.append(NewRules(rules_id, rules, looked_at, tuple(generated)))
        return rules_id

    def drop_rules(self, rules_id: int) -> None:
        """The sequence they belonged to is over, or starts over."""
        self._operations.append(DropRules(rules_id))

    # Lanes

    def new_lane(self) -> int:
        """The id of a lane; its first join makes it."""
        return self._new_id()

    def grow(self, lane: int, num_rows: int, num_tokens: int) -> bool:
        """Note a lane's size, if that has room."""
        if not self._make_room(num_tokens, None, num_rows, instead_of=lane):
            return False
        self.memory.hold(lane, num_tokens, num_rows)
        return True

    def join(self, lane: int, sources: Items[int], num_rows: int, num_tokens: int) -> bool:
        """Let the caches become rows of a lane, which then has `num_rows`, if that has room."""
        held = {source: self.memory.release(source) for source in sources}
        if not self._make_room(num_tokens, None, num_rows, instead_of=lane):
            for source, size in held.items():
                self.memory.restore(source, size)
            return False
        self.memory.hold(lane, num_tokens, num_rows)
        self._operations.append(JoinLane(lane, tuple(sources)))
        return True

    def take_row(self, lane: int, row: int, num_tokens: int) -> int:
        """A cache equal to one row."""
        cache_id = self._new_id()
        self._operations.append(TakeRow(cache_id, lane, row))
        self.memory.hold(cache_id, num_tokens)
        return cache_id

    def keep_rows(self, lane: int, rows: Items[int], num_tokens: int) -> None:
        """Drop all other rows of a lane."""
        self.num_freed += 1
        self._operations.append(KeepRows(lane, tuple(rows)))
        self.memory.hold(lane, num_tokens, len(rows))

    # Prefixes

    def num_known(self, tokens: Items[TokenId]) -> int:
        """How many of a prompt's tokens a known prefix would spare now. Thread-safe."""
        return self.prefixes.would_cover(tokens) if self._reuses_prefixes else 0

    def can_keep(self, num_tokens: int) -> bool:
        """Whether a prefix of this length is worth keeping and has room, if need be in place of
        older ones."""
        if not self._reuses_prefixes or num_tokens < MIN_MATCH:
            return False
        return self._make_room(num_tokens, None)

    def keep_prefix(self, cache_id: int, tokens: Items[TokenId]) -> PrefixEntry | None:
        """A cache is nobody's any more: it stays as a prefix for others, if it is worth it."""
        if not self._reuses_prefixes or len(tokens) < MIN_MATCH:
            self.drop(cache_id)
            return None
        self.num_freed += 1  # what is a prefix can be let go of
        self.memory.hold(cache_id, len(tokens))
        entry = PrefixEntry(tuple(tokens), cache_id)
        for superfluous in self.prefixes.add(entry):
            self._forget(superfluous)
        return entry

    def fork_of(self, tokens: Items[TokenId]) -> int | None:
        """Where other prompts that begin like this one went on differently, if known prefixes are
        of no use to them there because caches cannot be trimmed: a prefix worth keeping."""
        shared = self.prefixes.shared_with_any(tokens)
        return shared if self.prefixes.would_cover(tokens) < shared >= MIN_MATCH else None

    def copy_as_prefix(self, cache_id: int, tokens: Items[TokenId]) -> PrefixEntry | None:
        """Keep what a running sequence's cache holds now, if there is room. Its steps may yet fail:
        it is not proven."""
        if not self.can_keep(len(tokens)):
            return None
        copy = self._new_id()
        self._operations.append(CopyCache(copy, cache_id, 0))
        entry = self.keep_prefix(copy, tokens)
        if entry is not None:
            entry.is_proven = False
        return entry

    def forget_prefix(self, entry: PrefixEntry) -> None:
        """It turned out to be of no use."""
        if entry in self.prefixes:
            self.prefixes.remove(entry)
            self._forget(entry)

    def delete_saved(self, name: str) -> None:
        """Tell the stages to delete what they saved under this name."""
        self._operations.append(ForgetSaved(name))

    def leave_disk(self, entry: PrefixEntry) -> None:
        """It is deleted from the stages' disks."""
        entry.saved_as = None
        entry.is_savable = False
        if entry.cache_id is None and entry in self.prefixes:
            self.prefixes.remove(entry)

    def _find_prefix(self, tokens: Items[TokenId]) -> PrefixMatch | None:
        """The best known prefix. What comes from disk may fail to load: such a prefix leaves two
        tokens at least, so that a prompt chunk tells before the sequence joins others in a lane."""
        match = self.prefixes.find(tokens)
        if match is None or (match.entry.cache_id is not None and match.entry.is_proven):
            return match
        if match.num_tokens < len(tokens) - 1:
            return match
        can_leave_more = self.prefixes.can_trim_length(len(match.entry.tokens))
        return replace(match, num_tokens=match.num_tokens - 1) if can_leave_more else None

    def _copy_prefix(self, match: PrefixMatch, cache_id: int) -> None:
        entry = match.entry
        if entry.cache_id is None:
            assert entry.saved_as is not None  # noqa: S101 - an entry is in one place at least
            entry.cache_id = self._new_id()
            entry.is_proven = False
            self._operations.append(LoadCache(entry.cache_id, entry.saved_as))
            self.memory.hold(entry.cache_id, len(entry.tokens))
        num_trimmed = len(entry.tokens) - match.num_tokens
        self._operations.append(CopyCache(cache_id, entry.cache_id, num_trimmed))

    # Room

    def _make_room(
        self,
        num_tokens: int,
        spared: PrefixEntry | None,
        num_rows: int = 1,
        instead_of: int | None = None,
    ) -> bool:
        """Let go of prefixes, the longest unused first and `spared` not at all, until such a cache
        fits. (`spared` may be in the way itself: it goes once it was copied.)"""
        if self.memory.fits(num_tokens, num_rows, instead_of):
            return True
        if not self.memory.fits_without(self._prefix_ids(), num_tokens, num_rows, instead_of):
            return False
        for entry in list(self.prefixes):
            if entry is not spared and entry.cache_id is not None:
                self._evict(entry)
                if self.memory.fits(num_tokens, num_rows, instead_of):
                    break
        return True

    def evict_while_over(self) -> None:
        """Let go of prefixes, the longest unused first, until no stage holds more than it may."""
        while self.memory.is_over:
            entry = self.prefixes.oldest(_is_in_memory)
            if entry is None:
                return
            self._evict(entry)

    def _evict(self, entry: PrefixEntry) -> None:
        if entry.cache_id is not None:
            self.drop(entry.cache_id)
        self._leave_memory(entry)

    def _forget(self, entry: PrefixEntry) -> None:
        if entry.cache_id is not None:
            self.drop(entry.cache_id)
        if entry.saved_as is not None:
            self._operations.append(ForgetSaved(entry.saved_as))
            self._forgotten.append(entry.saved_as)

    def _leave_memory(self, entry: PrefixEntry) -> None:
        entry.cache_id = None
        if entry.saved_as is None:
            self.prefixes.remove(entry)

    def _prefix_ids(self) -> list[int]:
        return [entry.cache_id for entry in self.prefixes if entry.cache_id is not None]

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id


def _is_in_memory(entry: PrefixEntry) -> bool:
    return entry.cache_id is not None
