"""How many tokens each cache of simulated stages holds: attention takes longer over more."""

from tbcluster.core import MicroBatch
from tbcluster.wire.operations import CacheOperation, CopyCache, DropCache, NewCache, TakeRow


class Positions:
    """Follows the operations and steps that stages are sent. Rows of a lane are padded to the
    longest, so each counts as that long."""

    def __init__(self) -> None:
        self._lengths: dict[int, int] = {}

    def apply(self, operation: CacheOperation) -> None:
        """An operation is applied before the next step."""
        lengths = self._lengths
        match operation:
            case NewCache(cache_id):
                lengths[cache_id] = 0
            case CopyCache(cache_id, source, num_trimmed):
                lengths[cache_id] = max(0, lengths.get(source, 0) - num_trimmed)
            case TakeRow(cache_id, lane, _):
                lengths[cache_id] = lengths.get(lane, 0)
            case DropCache(cache_id):
                lengths.pop(cache_id, None)
            case _:
                pass  # a lane's length is its newest step's

    def advance(self, micro_batch: MicroBatch) -> int:
        """Tokens before those of a step, which are held from then on."""
        cache_id = micro_batch.cache_id
        if micro_batch.samples:
            longest = max(sample.position for sample in micro_batch.samples)
            self._lengths[cache_id] = longest
            return longest
        before = self._lengths.get(cache_id, 0)
        self._lengths[cache_id] = before + len(micro_batch.tokens)
        return before
