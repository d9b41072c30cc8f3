"""Which sequences decode together. Pure.

A lane is a batch of sequences whose newest tokens travel as one micro-batch. There are as many
lanes as keep all stages busy, each of about as many rows as the others; sequences join and leave
whenever their lane is not on its way. Rows are padded to the longest, so sequences of very
different lengths go into lanes of their own.
"""

import math
from collections import deque
from dataclasses import dataclass, field

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
    """

    lane_id: int
    length_class: int
    rows: list[Sequence | None] = field(default_factory=list)
    is_in_flight: bool = False

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

    def __len__(self) -> int:
        return len(self._lanes)

    @property
    def lanes(self) -> list[Lane]:
        """All lanes, oldest first."""
        return list(self._lanes.values())

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
            cache_id = self._caches.take_row(lane.lane_id, row, sequence.num_scheduled)
            self._caches.keep_prefix(cache_id, sequence.tokens[: sequence.num_scheduled])

    def next_turn(self) -> Lane | None:
        """The lane that waits for longest, taken out of the turns."""
        self._open_lanes()
        return self._turns.popleft() if self._turns else None

    def end_turn(self, lane: Lane) -> None:
        """A lane is back, or could not go."""
        lane.is_in_flight = False
        if lane.lane_id in self._lanes:
            self._turns.append(lane)

    def settle(self, lane: Lane) -> None:
        """Tell the stages which rows have left. A lane without rows is gone."""
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
        ready = self._ready.get(lane.length_class)
        num_free = self._rows_per_lane(lane.length_class) - len(lane.rows)
        joining = [ready.popleft() for _ in range(min(num_free, len(ready)))] if ready else []
        while joining and not self._join(lane, joining):
            assert ready is not None  # noqa: S101 - they came from there
            ready.appendleft(joining.pop())

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
        for sequence in lane.sequences[self._rows_per_lane(lane.length_class) :]:
            self._release(lane, sequence)

    def _release(self, lane: Lane, sequence: Sequence) -> None:
        row = lane.rows.index(sequence)
        lane.rows[row] = None
        del self._lane_of[sequence.arrival]
        sequence.cache_id = self._caches.take_row(lane.lane_id, row, sequence.num_scheduled + 1)
        self.enter(sequence)

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
