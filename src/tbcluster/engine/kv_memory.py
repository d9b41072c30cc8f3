"""How many bytes of KV cache every stage holds, against what it may hold. Pure arithmetic.

Sizes come from the model's own caches (`CacheCost`). mlx-lm's caches grow by whole blocks from
whatever length they had, and the rows of a lane are padded to the longest: both count as held.
"""

from collections.abc import Iterable, Sequence

from tbcluster.core import KV_BLOCK_TOKENS, CacheCost

# A context that no memory holds: where the search for a capacity ends.
MAX_CAPACITY_TOKENS = 1 << 40


class KvMemory:
    """Bytes per stage of every cache, by cache id.

    Args:
        costs: For each stage, one entry per cache it keeps.
        budgets: Bytes that the KV caches of each stage may take.
    """

    def __init__(self, costs: Sequence[Sequence[CacheCost]], budgets: Sequence[int]) -> None:
        self._costs = [list(stage) for stage in costs]
        self._budgets = tuple(budgets)
        self._used = [0] * len(self._budgets)
        self._held: dict[int, tuple[int, ...]] = {}
        self._known: dict[int, tuple[int, ...]] = {}

    @property
    def budgets(self) -> tuple[int, ...]:
        """Bytes that each stage may hold."""
        return self._budgets

    @property
    def used(self) -> tuple[int, ...]:
        """Bytes that each stage holds."""
        return tuple(self._used)

    @property
    def is_over(self) -> bool:
        """Whether a stage holds more than it may."""
        return any(used > budget for used, budget in zip(self._used, self._budgets, strict=True))

    def bytes_for(self, num_tokens: int, num_rows: int = 1) -> tuple[int, ...]:
        """Bytes per stage of a cache of `num_rows` sequences, the longest of `num_tokens`."""
        # Lengths of as many blocks cost the same.
        key = -(-(num_tokens - 2) // KV_BLOCK_TOKENS)
        one = self._known.get(key)
        if one is None:
            one = tuple(sum(cost.held_bytes(num_tokens) for cost in stage) for stage in self._costs)
            self._known[key] = one
        return one if num_rows == 1 else tuple(size * num_rows for size in one)

    def fits(self, num_tokens: int, num_rows: int = 1, instead_of: int | None = None) -> bool:
        """Whether such a cache has room, in place of one that is held now."""
        return self.fits_without((), num_tokens, num_rows, instead_of)

    def fits_without(
        self,
        others: Iterable[int],
        num_tokens: int,
        num_rows: int = 1,
        instead_of: int | None = None,
    ) -> bool:
        """Whether such a cache would have room were the `others` gone."""
        left = [
            budget - used - more
            for budget, used, more in zip(
                self._budgets, self._used, self.bytes_for(num_tokens, num_rows), strict=True
            )
        ]
        freed = set(others) if instead_of is None else {*others, instead_of}
        for cache_id in freed & self._held.keys():
            left = [room + size for room, size in zip(left, self._held[cache_id], strict=True)]
        return min(left) >= 0

    def hold(self, cache_id: int, num_tokens: int, num_rows: int = 1) -> None:
        """Note what a cache takes from now on."""
        self.release(cache_id)
        self.restore(cache_id, self.bytes_for(num_tokens, num_rows))

    def release(self, cache_id: int) -> tuple[int, ...]:
        """Note that a cache is gone, and say what it took; nothing for unknown ids."""
        held = self._held.pop(cache_id, (0,) * len(self._used))
        self._used = [used - size for used, size in zip(self._used, held, strict=True)]
        return held

    def restore(self, cache_id: int, held: tuple[int, ...]) -> None:
        """Undo a release."""
        self._held[cache_id] = held
        self._used = [used + size for used, size in zip(self._used, held, strict=True)]

    def clear(self) -> None:
        """All caches are gone."""
        self._held.clear()
        self._used = [0] * len(self._budgets)

    def capacity_tokens(self) -> int:
        """The longest single sequence that fits into an empty pipeline."""
        low, high = 0, MAX_CAPACITY_TOKENS
        while low < high:
            middle = (low + high + 1) // 2
            sizes = self.bytes_for(middle)
            if all(size <= budget for size, budget in zip(sizes, self._budgets, strict=True)):
                low = middle
            else:
                high = middle - 1
        return low

    def tightest_stage(self, num_tokens: int) -> int:
        """The stage with the least room left were it to hold such a sequence alone."""
        sizes = self.bytes_for(num_tokens)
        return min(range(len(sizes)), key=lambda stage: self._budgets[stage] - sizes[stage])
