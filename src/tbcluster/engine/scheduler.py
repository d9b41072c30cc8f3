"""Which micro-batch goes next. Pure: no clock, no socket, no thread.

Sequences take turns, one micro-batch each; prompt chunks of one sequence may follow one another
through the stages, a decode step waits for the token before it.
"""

from collections import deque

from tbcluster.core import MicroBatch
from tbcluster.engine.sequence import Sequence


class Scheduler:
    """Keeps at most `max_in_flight` micro-batches in the pipeline.

    Args:
        max_in_flight: At least the number of stages, or some stage would always wait.
        chunk_tokens: Most prompt tokens in one micro-batch.
        max_per_sequence: Most micro-batches of one sequence in flight (1 for looped models, whose
            second visit must come before the next chunk's first).
    """

    def __init__(self, max_in_flight: int, chunk_tokens: int, max_per_sequence: int) -> None:
        self._max_in_flight = max_in_flight
        self._chunk_tokens = chunk_tokens
        self._max_per_sequence = max_per_sequence
        self._turns: deque[Sequence] = deque()
        self._num_in_flight = 0

    @property
    def num_sequences(self) -> int:
        return len(self._turns)

    def add(self, sequence: Sequence) -> None:
        """Let a sequence take part."""
        self._turns.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out; what it has in flight still comes back."""
        self._turns.remove(sequence)

    def schedule(self) -> MicroBatch | None:
        """The next micro-batch, counted as in flight from now on; None when there is nothing to
        send or the pipeline is full."""
        if self._num_in_flight >= self._max_in_flight:
            return None
        for _ in range(len(self._turns)):
            sequence = self._turns[0]
            self._turns.rotate(-1)
            if self._is_ready(sequence):
                return self._take(sequence)
        return None

    def completed(self, sequence: Sequence | None) -> None:
        """A micro-batch came back; `sequence` is None when its sequence is gone."""
        self._num_in_flight -= 1
        if sequence is not None:
            sequence.num_in_flight -= 1

    def reset(self) -> None:
        """Forget everything in flight and every sequence (a new epoch begins)."""
        self._turns.clear()
        self._num_in_flight = 0

    def _is_ready(self, sequence: Sequence) -> bool:
        return sequence.num_ready > 0 and sequence.num_in_flight < self._max_per_sequence

    def _take(self, sequence: Sequence) -> MicroBatch:
        micro_batch = sequence.next_micro_batch(self._chunk_tokens)
        sequence.num_scheduled += len(micro_batch.tokens)
        sequence.num_in_flight += 1
        self._num_in_flight += 1
        return micro_batch
