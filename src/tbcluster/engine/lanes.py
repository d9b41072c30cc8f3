"""Which sequences decode together. Pure.

A lane is a batch of sequences whose newest tokens travel as one micro-batch. There are as many
lanes as keep all stages busy, each of about as many rows as the others; sequences join and leave
whenever their lane is not on its way. Rows are padded to the longest, so sequences of very
different lengths go into lanes of their own.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from tbcluster.core import TokenId
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.sequence import Sequence

# Sequences shorter than this share lanes; above it, those whose lengths differ by less than 4x.
SHORT_TOKENS = 2048
CLASS_FACTOR = 4


@dataclass(eq=False, slots=True)
class Lane:
    """Sequences that decode together.

    Attributes:
        rows: In the stages' order; None for a sequence that left since the last step.
        kept_rows: Rows to be kept as prefixes, with their tokens, once the step that is on its way
            has succeeded.
    """

    lane_id: int
    length_class: int
    rows: list[Sequence | None] = field(default_factory=list)
    is_in_flight: bool = False
    kept_rows: dict[int, list[TokenId]] = field(default_factory=dict)

    @property
    def sequences(self) -> list[Sequence]:
        """Those that are still in it."""
        return [sequence for sequence in self.rows if sequence is not None]

    @property
    def num_left(self) -> int:
        """Rows that the stages still hold although their sequence has left."""
        return self.rows.count(None)


class Lanes:
    """All lanes, and the sequences that wait to join one.

    Args:
        num_lanes: How many lanes share the sequences of like length: one per stage keeps all busy.
        max_rows: Most sequences in one lane; 1 for models that cannot decode in batches.
    """

    def __init__(self, caches: CacheBook, num_lanes: int, max_rows: int) -> None:
        self._caches = caches
        self._num_lanes = num_lanes
        self._max_rows = max_rows
        self._lanes: dict[int, Lane] = {}
        self._lane_of: dict[int, Lane] = {}
        self._turns: deque[Lane] = deque()
        self._ready: dict[int, deque[Sequence]] = {}
        # Length classes in which someone found no room in a lane that had a place for it.
        self._crowded: set[int] = set()

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def has_streams(self) -> bool:
        """Whether someone who has had a token waits for the next."""
        return any(
            sequence is not None and sequence.num_generated
            for lane in self._lanes.values()
            for sequence in lane.rows
        )

    @property
    def num_leaving(self) -> int:
        """Rows whose memory comes free when their lane is back."""
        return sum(lane.num_left for lane in self._lanes.values())

    def clear(self) -> None:
        """All lanes are gone."""
        self._lanes.clear()
        self._lane_of.clear()
        self._turns.clear()
        self._ready.clear()
        self._crowded.clear()

    def enter(self, sequence: Sequence) -> None:
        """A sequence with a cache of its own waits for its next token."""
        kind = self._length_class(sequence.num_scheduled)
        self._ready.setdefault(kind, deque()).append(sequence)

    def leave(self, sequence: Sequence, *, keeps_prefix: bool) -> None:
        """A sequence is over; what its cache holds may be of use to others."""
        lane = self._lane_of.pop(sequence.arrival, None)
        if lane is None:
            self._leave_ready(sequence, keeps_prefix)
            return
        row = lane.rows.index(sequence)
        lane.rows[row] = None
        if keeps_prefix:
            lane.kept_rows[row] = sequence.tokens[: sequence.num_scheduled]
        if not lane.is_in_flight:
            self._keep_rows(lane)

    def next_turn(self) -> Lane | None:
        """The lane that waits for longest, taken out of the turns."""
        self._open_lanes()
        return self._turns.popleft() if self._turns else None

    def end_turn(self, lane: Lane, *, failed: bool = False) -> None:
        """A lane is back, or could not go."""
        lane.is_in_flight = False
        if failed:
            lane.kept_rows.clear()
        self._keep_rows(lane)
        if lane.lane_id in self._lanes:
            self._turns.append(lane)

    def settle(self, lane: Lane) -> None:
        """Tell the stages which rows have left; they drop a lane without rows."""
        if lane.num_left:
            kept = [row for row, sequence in enumerate(lane.rows) if sequence is not None]
            lane.rows = [lane.rows[row] for row in kept]
            if kept:
                self._caches.keep_rows(lane.lane_id, kept, _longest(lane.sequences))
            else:
                self._caches.drop(lane.lane_id)

    def settle_idle(self) -> None:
        """Settle every lane that is not on its way."""
        for lane in self._lanes.values():
            if not lane.is_in_flight:
                self.settle(lane)

    def has_ready(self, lane: Lane) -> bool:
        """Whether sequences wait to join a lane of this class."""
        return bool(self._ready.get(lane.length_class))

    def close_if_empty(self, lane: Lane) -> bool:
        """Whether the lane, which is settled, has no rows left; it is gone then."""
        if lane.rows:
            return False
        del self._lanes[lane.lane_id]
        return True

    def fill(self, lane: Lane) -> None:
        """Even the lane out with the others of its class, as far as there is room."""
        self._release_surplus(lane)
        self.settle(lane)
        kind = lane.length_class
        ready = self._ready.get(kind)
        if not ready:
            self._crowded.discard(kind)
            return
        # Whoever found no room elsewhere may join here beyond the lane's share.
        most = self._max_rows if kind in self._crowded else self._rows_per_lane(kind)
        joining = [ready.popleft() for _ in range(min(most - len(lane.rows), len(ready)))]
        while joining and not self._join(lane, joining):
            ready.appendleft(joining.pop())
            self._crowded.add(kind)

    def grow(self, lane: Lane) -> bool:
        """Whether each row has room for one more token."""
        longest = _longest(lane.sequences) + 1
        return self._caches.grow(lane.lane_id, len(lane.rows), longest)

    def _join(self, lane: Lane, joining: list[Sequence]) -> bool:
        sources = [s.cache_id for s in joining if s.cache_id is not None]
        longest = _longest([*lane.sequences, *joining]) + 1
        num_rows = len(lane.rows) + len(joining)
        if not self._caches.join(lane.lane_id, sources, num_rows, longest):
            return False
        for sequence in joining:
            sequence.cache_id = None
            self._lane_of[sequence.arrival] = lane
        lane.rows += joining
        return True

    def _release_surplus(self, lane: Lane) -> None:
        if lane.length_class in self._crowded:
            return
        for sequence in lane.sequences[self._rows_per_lane(lane.length_class) :]:
            if not self._has_room_elsewhere(lane, sequence):
                return
            self._release(lane, sequence)

    def _has_room_elsewhere(self, lane: Lane, sequence: Sequence) -> bool:
        """Whether the smallest other lane of the class could take the sequence; a lane that is yet
        to be opened could."""
        others = [
            other
            for other in self._lanes.values()
            if other.length_class == lane.length_class and other is not lane
        ]
        if len(others) + 1 < self._lanes_for(lane.length_class):
            return True
        smallest = min(others, key=lambda other: len(other.rows))
        longest = _longest([*smallest.sequences, sequence]) + 1
        num_rows = len(smallest.rows) + 1
        return self._caches.memory.fits(longest, num_rows, instead_of=smallest.lane_id)

    def _release(self, lane: Lane, sequence: Sequence) -> None:
        row = lane.rows.index(sequence)
        lane.rows[row] = None
        del self._lane_of[sequence.arrival]
        sequence.cache_id = self._caches.take_row(lane.lane_id, row, sequence.num_scheduled + 1)
        self.enter(sequence)

    def _keep_rows(self, lane: Lane) -> None:
        """Keep rows that have left as prefixes, where there is room beside the lane. (The only row
        of a lane needs none: the copy shares its memory, and the lane is dropped.)"""
        for row, tokens in lane.kept_rows.items():
            if len(lane.rows) == 1 or self._caches.can_keep(len(tokens)):
                cache_id = self._caches.take_row(lane.lane_id, row, len(tokens))
                self._caches.keep_prefix(cache_id, tokens)
        lane.kept_rows.clear()

    def _leave_ready(self, sequence: Sequence, keeps_prefix: bool) -> None:
        for ready in self._ready.values():
            if sequence in ready:
                ready.remove(sequence)
        if sequence.cache_id is None:
            return
        if keeps_prefix:
            tokens = sequence.tokens[: sequence.num_scheduled]
            self._caches.keep_prefix(sequence.cache_id, tokens)
        else:
            self._caches.drop(sequence.cache_id)
        sequence.cache_id = None

    def _open_lanes(self) -> None:
        for kind, ready in self._ready.items():
            num_open = sum(lane.length_class == kind for lane in self._lanes.values())
            num_missing = min(self._lanes_for(kind) - num_open, len(ready))
            for _ in range(num_missing):
                lane = Lane(self._caches.new_lane(), kind)
                self._lanes[lane.lane_id] = lane
                self._turns.append(lane)

    def _lanes_for(self, kind: int) -> int:
        return max(self._num_lanes, math.ceil(self._num_sequences(kind) / self._max_rows))

    def _rows_per_lane(self, kind: int) -> int:
        return max(1, math.ceil(self._num_sequences(kind) / self._lanes_for(kind)))

    def _num_sequences(self, kind: int) -> int:
        decoding = sum(
            len(lane.sequences) for lane in self._lanes.values() if lane.length_class == kind
        )
        return decoding + len(self._ready.get(kind, ()))

    def _length_class(self, num_tokens: int) -> int:
        if self._max_rows == 1 or num_tokens < SHORT_TOKENS:
            return 0
        return 1 + int(math.log(num_tokens / SHORT_TOKENS, CLASS_FACTOR))


def _longest(sequences: list[Sequence]) -> int:
    return max(sequence.num_scheduled for sequence in sequences)
