"""Which micro-batch goes next. Pure: no clock, no socket, no thread.

Decode steps go first, a lane at a time; what they leave of the stages' time goes to prompt chunks
(`Pace`). Chunks of several prompts fill the pipeline: each prompt is due once as many prompt tokens
as its own length have been computed since it came, and the one that is due first goes first. So a
short prompt need not wait for a long one, and the long one for no more others than its own length.
One that has lost its cache again before it got a token goes first: else it might never get any.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass

from tbcluster.core import MAX_CHUNK_TOKENS, MicroBatch, TokenId, VisitTiming
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.lanes import Lane, Lanes
from tbcluster.engine.pace import Pace
from tbcluster.engine.prefix_index import common_length
from tbcluster.engine.sequence import Sequence

# Prompt tokens that must be new for a copy of a prompt's cache to be worth its memory.
MIN_NEW_PREFIX = 64
UNLIMITED = 1 << 30
# Who starts over more often without a token goes first, and at full pace.
MAX_IN_VAIN = 1


@dataclass(frozen=True, slots=True)
class Shape:
    """What the scheduler must know of the pipeline.

    Attributes:
        max_rows: Most sequences that decode together; 1 for models that cannot.
        max_per_sequence: Most prompt chunks of one sequence in flight (1 for looped models, whose
            second visit must come before the next chunk's first).
        fixed_chunks: Whether prompts are cut as mlx-lm cuts them, whatever the pace.
    """

    num_stages: int
    max_rows: int = 256
    max_per_sequence: int = UNLIMITED
    fixed_chunks: bool = False

    @property
    def max_in_flight(self) -> int:
        """One more than there are stages: it is there when the first stage comes free."""
        return self.num_stages + 1


class Scheduler:
    """Turns sequences into micro-batches, and keeps as many on their way as fill the pipeline."""

    def __init__(self, shape: Shape, caches: CacheBook, pace: Pace) -> None:
        self._shape = shape
        self._caches = caches
        self._pace = pace
        self._lanes = Lanes(caches, shape.num_stages, shape.max_rows)
        self._sequences: dict[int, Sequence] = {}
        self._prefilling: dict[int, Sequence] = {}
        self._decodes: dict[int, tuple[Lane, list[Sequence | None]]] = {}
        self._chunks: dict[int, Sequence] = {}
        self._num_chunks_in_flight = 0
        self._num_prefilled = 0
        self._just_sent: Sequence | None = None
        self._preempted: list[Sequence] = []
        self._misled: list[Sequence] = []

    @property
    def num_sequences(self) -> int:
        return len(self._sequences)

    @property
    def num_in_flight(self) -> int:
        """Micro-batches on their way."""
        return len(self._decodes) + self._num_chunks_in_flight

    def add(self, sequence: Sequence) -> None:
        """Let a sequence take part; it has a cache that holds `num_scheduled` of its tokens."""
        sequence.due = self._num_prefilled + sequence.num_ready
        sequence.fork = self._fork_of(sequence) if sequence.leaves_prefixes else None
        self._sequences[sequence.arrival] = sequence
        self._prefilling[sequence.arrival] = sequence
        self._make_rules(sequence)
        self._go_on(sequence)

    def remove(self, sequence: Sequence, *, keeps_prefix: bool = False) -> None:
        """Take a sequence out; what it has in flight still comes back. Its cache is not kept as a
        prefix while prompt chunks of it could still fail."""
        is_proven = sequence.num_in_flight == 0 and sequence.started_from is None
        if not is_proven:
            self._withdraw(sequence)
        del self._sequences[sequence.arrival]
        self._prefilling.pop(sequence.arrival, None)
        self._chunks = {i: other for i, other in self._chunks.items() if other is not sequence}
        self._lanes.leave(sequence, keeps_prefix=keeps_prefix and is_proven)
        self._drop_rules(sequence)

    def schedule(self) -> MicroBatch | None:
        """The next micro-batch, counted as in flight from now on; None when there is nothing to
        send or the pipeline is full."""
        self._follow_chunk()
        self.settle()
        return self._next_decode() or self._next_chunk()

    def settle(self) -> None:
        """Free the memory of whatever has left, as far as its lane is not on its way."""
        self._lanes.settle_idle()
        self._caches.evict_while_over()

    def completed(
        self, micro_batch: MicroBatch, timings: tuple[VisitTiming, ...], *, failed: bool = False
    ) -> list[Sequence | None]:
        """A micro-batch came back. Returns whose rows it held, None for those that have left."""
        slowest_us = max((timing.compute_us for timing in timings), default=0)
        if micro_batch.samples:
            if not failed:
                self._pace.observe_decode(micro_batch.num_rows, slowest_us)
            return self._decode_completed(micro_batch, failed)
        if not failed:
            self._pace.observe_chunk(len(micro_batch.tokens), slowest_us)
        return [self._chunk_completed(micro_batch, failed)]

    def take_preempted(self) -> list[Sequence]:
        """Those that had to give up their caches since the last time, newest first. Whoever takes
        them adds them again when there is room."""
        preempted, self._preempted = self._preempted, []
        return preempted

    def take_misled(self) -> list[Sequence]:
        """Those that started from what may lack tokens, since the last time: they have to start
        over."""
        misled, self._misled = self._misled, []
        return [s for s in misled if self._sequences.get(s.arrival) is s and s.started_from]

    def reset(self) -> None:
        """Forget everything in flight and every sequence (a new epoch begins)."""
        self._sequences.clear()
        self._prefilling.clear()
        self._decodes.clear()
        self._chunks.clear()
        self._just_sent = None
        self._lanes.clear()
        self._num_chunks_in_flight = 0
        self._preempted.clear()
        self._misled.clear()

    def prefix_in_progress(self, tokens: Items[TokenId], num_known: int) -> int | None:
        """The arrival number of a sequence whose prompt is being computed and will spare these
        tokens more than waiting for it costs."""
        for leader in self._prefilling.values():
            shared = common_length(leader.tokens, tokens) if leader.leaves_prefixes else 0
            for end in (leader.fork, len(leader.tokens) - 1):
                if end is None:
                    continue
                gain = self._covered_by(end, shared) - num_known
                if gain >= MIN_NEW_PREFIX and gain >= end - leader.num_scheduled:
                    return leader.arrival
        return None

    def is_prefilling(self, arrival: int) -> bool:
        """Whether the prompt of this sequence is still being computed."""
        return arrival in self._prefilling

    def _make_rules(self, sequence: Sequence) -> None:
        """Before its prompt is computed: a grammar is compiled beside that."""
        if (rules := sequence.request.rules) is not None:
            prompt = sequence.request.prompt
            generated = sequence.tokens[len(prompt) :]
            sequence.rules_id = self._caches.new_rules(rules, prompt, generated)

    def _drop_rules(self, sequence: Sequence) -> None:
        if sequence.rules_id is not None:
            self._caches.drop_rules(sequence.rules_id)
            sequence.rules_id = None

    def _fork_of(self, sequence: Sequence) -> int | None:
        """Where to keep a copy of a cache before all of the sequence is computed: where others went
        on differently or, if it starts over with an answer of its own, at the end of the prompt,
        which others may have as well."""
        fork = self._caches.fork_of(sequence.tokens)
        end = len(sequence.request.prompt) - 1
        is_worth_it = sequence.num_generated and end - sequence.num_scheduled >= MIN_NEW_PREFIX
        return end if fork is None and is_worth_it and not self._shape.fixed_chunks else fork

    def _covered_by(self, end: int, shared: int) -> int:
        """How many tokens a prefix of `end` tokens covers for who shares so many of them: all they
        share where caches can be trimmed, else nothing unless it ends within that."""
        if self._caches.prefixes.can_trim_length(end):
            return min(shared, end)
        return end if end <= shared else 0

    # Decode steps

    def _next_decode(self) -> MicroBatch | None:
        if len(self._decodes) >= self._shape.max_in_flight:
            return None
        for _ in range(len(self._lanes) + 1):
            lane = self._lanes.next_turn()
            if lane is None:
                return None
            if self._prepare(lane):
                return self._decode(lane)
            if not self._lanes.close_if_empty(lane):
                self._lanes.end_turn(lane)
        return None

    def _prepare(self, lane: Lane) -> bool:
        """Whether the lane has rows, and room for one more token in each; if need be the newest
        sequences give up theirs."""
        while True:
            self._lanes.fill(lane)
            if lane.rows and self._lanes.grow(lane):
                return True
            if not lane.rows and not self._lanes.has_ready(lane):
                return False
            self._lanes.settle_idle()
            # What leaves a lane that is on its way comes free when that is back.
            if self._lanes.num_leaving or not self._preempt_newest():
                return False

    def _decode(self, lane: Lane) -> MicroBatch:
        sequences = lane.sequences
        lane.is_in_flight = True
        self._decodes[lane.lane_id] = lane, list(sequences)
        self._pace.decode_scheduled(len(self._lanes))
        tokens = tuple(sequence.tokens[-1] for sequence in sequences)
        samples = tuple(sequence.next_sample() for sequence in sequences)
        for sequence in sequences:
            sequence.num_scheduled += 1
        return MicroBatch(lane.lane_id, tokens, samples)

    def _decode_completed(self, micro_batch: MicroBatch, failed: bool) -> list[Sequence | None]:
        lane, sequences = self._decodes.pop(micro_batch.cache_id)
        still_there = set(lane.rows)
        self._lanes.end_turn(lane, failed=failed)
        return [sequence if sequence in still_there else None for sequence in sequences]

    def _preempt_newest(self) -> bool:
        if len(self._sequences) < 2:
            return False
        newest = self._sequences[max(self._sequences)]
        self.remove(newest)
        newest.start_over()
        self._preempted.append(newest)
        return True

    # Prompt chunks

    def _next_chunk(self) -> MicroBatch | None:
        if self._num_chunks_in_flight >= self._shape.max_in_flight:
            return None
        waiting = [
            sequence
            for sequence in self._prefilling.values()
            if sequence.num_prefill > 0 and sequence.num_in_flight < self._shape.max_per_sequence
        ]
        if not waiting:
            return None
        sequence = min(waiting, key=lambda s: (not _is_neglected(s), s.due, s.arrival))
        if self._shape.fixed_chunks or not self._lanes.has_streams or _is_neglected(sequence):
            return self._chunk(sequence, self._filling_size(sequence))
        size = self._paced_size(sequence)
        if size:
            self._pace.chunk_scheduled(size)
        return self._chunk(sequence, size) if size else None

    def _filling_size(self, sequence: Sequence) -> int:
        if self._shape.fixed_chunks:
            return min(MAX_CHUNK_TOKENS, sequence.num_prefill)
        others = sum(other.num_prefill for other in self._prefilling.values())
        num_waiting = others - sequence.num_prefill + len(sequence.tokens)
        return _part(sequence, self._pace.filling_chunk(num_waiting))

    def _paced_size(self, sequence: Sequence) -> int:
        most = self._pace.paced_chunk(sequence.num_prefill, len(self._lanes), self.num_in_flight)
        return _part(sequence, most) if most else 0

    def _chunk(self, sequence: Sequence, size: int) -> MicroBatch:
        assert sequence.cache_id is not None  # noqa: S101 - it has one until it joins a lane
        start = sequence.num_scheduled
        tokens = tuple(sequence.tokens[start : start + size])
        embedding = sequence.embedding
        pooling = embedding.pooling_of(start, size, sequence.tokens) if embedding else None
        chunk = MicroBatch(sequence.cache_id, tokens, pooling=pooling)
        sequence.num_scheduled += size
        sequence.num_in_flight += 1
        self._chunks[chunk.cache_id] = sequence
        self._num_chunks_in_flight += 1
        self._num_prefilled += size
        self._just_sent = sequence
        return chunk

    def _follow_chunk(self) -> None:
        """What comes after the chunk that was sent last: operations noted before it was sent would
        be applied before it."""
        sequence, self._just_sent = self._just_sent, None
        if sequence is not None and sequence.num_in_flight < self._shape.max_per_sequence:
            self._go_on(sequence)

    def _chunk_completed(self, micro_batch: MicroBatch, failed: bool) -> Sequence | None:
        self._num_chunks_in_flight -= 1
        sequence = self._chunks.get(micro_batch.cache_id)
        if sequence is None:
            return None
        sequence.num_in_flight -= 1
        if sequence.num_in_flight == 0:
            del self._chunks[micro_batch.cache_id]
        if failed:
            self._withdraw(sequence)
        else:
            self._prove(sequence)
            self._go_on(sequence)
        return sequence

    def _prove(self, sequence: Sequence) -> None:
        """A chunk has succeeded: so has the prefix it started from, and with the last chunk on its
        way what was copied of its cache."""
        if sequence.started_from is not None:
            sequence.started_from.is_proven = True
            sequence.started_from = None
        if sequence.num_in_flight == 0:
            for entry in sequence.published:
                entry.is_proven = True
            sequence.published.clear()

    def _withdraw(self, sequence: Sequence) -> None:
        """A chunk has failed, or nobody waits for it: what was copied of the cache, or what it was
        copied from, may lack tokens."""
        doubtful = [*sequence.published, sequence.started_from]
        for entry in doubtful:
            if entry is not None and not entry.is_proven:
                self._caches.forget_prefix(entry)
                self._misled += [s for s in self._sequences.values() if s.started_from is entry]
        sequence.published.clear()

    def _go_on(self, sequence: Sequence) -> None:
        """What follows a prompt chunk. Once only its last token is left, a sequence decodes: the
        step may follow the last chunk at once, since all stages see them in this order. (After the
        last chunk of an embedding the engine ends it.)"""
        if sequence.arrival not in self._prefilling or sequence.embedding is not None:
            return
        if sequence.num_scheduled == sequence.fork:
            self._publish(sequence)
            sequence.fork = None
        prefix = sequence.started_from
        may_fail = prefix is not None and not prefix.is_proven
        is_waiting = sequence.num_in_flight >= self._shape.max_per_sequence
        if sequence.num_prefill > 0 or may_fail or is_waiting:
            return
        del self._prefilling[sequence.arrival]
        num_new = len(sequence.request.prompt) - sequence.num_reused
        if sequence.num_generated == 0 and num_new >= MIN_NEW_PREFIX:
            self._publish(sequence)
        self._lanes.enter(sequence)

    def _publish(self, sequence: Sequence) -> None:
        """Let others start from what a sequence's cache holds now."""
        if not sequence.leaves_prefixes or sequence.cache_id is None:
            return
        tokens = sequence.tokens[: sequence.num_scheduled]
        entry = self._caches.copy_as_prefix(sequence.cache_id, tokens)
        if entry is not None and sequence.num_in_flight == 0:
            entry.is_proven = True
        elif entry is not None:
            sequence.published.append(entry)


def _is_neglected(sequence: Sequence) -> bool:
    """Whether it has started over more than once without a token in between: each time it was still
    being computed at the pace that running streams leave when stages were lost again."""
    return sequence.num_in_vain > MAX_IN_VAIN


def _part(sequence: Sequence, most: int) -> int:
    """The size of the next chunk. Equal chunks fill a pipeline better than some large ones and a
    rest; one ends where a copy is to be kept."""
    num_parts = -(-sequence.num_prefill // most)
    size = -(-sequence.num_prefill // num_parts)
    to_fork = (sequence.fork or 0) - sequence.num_scheduled
    return min(size, to_fork) if to_fork > 0 else size
