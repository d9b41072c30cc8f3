"""How large a prompt chunk may be. Pure: it learns from what the stages report."""

import math

from tbcluster.core import MAX_CHUNK_TOKENS
from tbcluster.engine.chunk_cost import MAX_SURPRISE, ChunkCost, Line, towards

MIN_CHUNK_TOKENS = 32
# Until anything was measured.
FIRST_CHUNK_TOKENS = 256
# Stage time that chunks may take for each unit that decode steps take: running streams then go at
# half their pace while a prompt comes in, and the prompt at half of its own.
PREFILL_SHARE = 1.0
# A chunk's tokens may each cost so many times what one more adds to a large chunk: twice where that
# keeps running streams at their pace, else three times. Where that takes streams by far out of
# their pace as well (a chunk reads all experts, a decode step few), it should be worth it.
WORTHWHILE, BARELY_WORTHWHILE, WELL_WORTHWHILE = 2.0, 3.0, 1.5
BY_FAR = 3.0


class Pace:
    """Sizes prompt chunks: large enough to be worth a trip, small enough to keep all stages busy
    and the running streams at their pace.

    Args:
        num_stages: How many stages the chunks of one prompt may fill at once.
        max_chunk_tokens: Never more than this in one micro-batch.
    """

    def __init__(self, num_stages: int, max_chunk_tokens: int = MAX_CHUNK_TOKENS) -> None:
        self._num_stages = num_stages
        self._max_chunk_tokens = max_chunk_tokens
        self._cost = ChunkCost()
        self._decode_us: float | None = None
        self._credit_us = 0.0
        self._longest_us = 0.0

    def observe_decode(self, num_rows: int, stage_us: float) -> None:
        """A decode step took this long on the stage that took longest."""
        if self._decode_us is not None:
            stage_us = min(stage_us, MAX_SURPRISE * self._decode_us)
        before = stage_us if self._decode_us is None else self._decode_us
        self._decode_us = towards(before, stage_us)
        self._cost.add_decode(num_rows, stage_us)

    def observe_chunk(self, num_tokens: int, stage_us: float) -> None:
        """A prompt chunk took this long on the stage that took longest."""
        self._cost.add_chunk(num_tokens, stage_us)

    def decode_scheduled(self, num_lanes: int) -> None:
        """A lane's step goes out: it earns stage time for prompt chunks."""
        earned_us = self._credit_us + PREFILL_SHARE * (self._decode_us or 0.0)
        self._longest_us = self._longest_chunk_us(num_lanes)
        self._credit_us = min(earned_us, self._longest_us)

    def filling_chunk(self, num_waiting_tokens: int) -> int:
        """Size of a chunk while no stream is running.

        `k` chunks of `c` tokens through `s` stages take (k + s - 1) times what one takes, with k =
        waiting / c.
        """
        if self._num_stages == 1:
            return self._max_chunk_tokens
        if self._cost.is_empty:
            return min(FIRST_CHUNK_TOKENS, self._max_chunk_tokens)

        def through_us(size: float) -> float:
            chunks = num_waiting_tokens / size + self._num_stages - 1
            return chunks * self._cost.of(size)

        sizes = [self._best_of(line, num_waiting_tokens) for line in self._cost.lines]
        return min(map(self._within_bounds, sizes), key=through_us)

    def paced_chunk(self, num_waiting_tokens: int, num_lanes: int, num_in_flight: int) -> int:
        """Size of a chunk between decode steps; 0 for not now. With fewer micro-batches in flight
        than stages, some stage would be idle: a chunk may go whatever was earned."""
        if self._decode_us is None:
            return self._within_bounds(0)
        longest_us = self._longest_chunk_us(num_lanes)
        smallest = min(num_waiting_tokens, self._worthwhile_tokens(longest_us))
        has_gap = num_in_flight < self._num_stages
        if not has_gap and self._credit_us < min(self._cost_us(smallest), longest_us):
            return 0
        spent_us = PREFILL_SHARE * self._decode_us if has_gap else self._credit_us
        affordable = self._cost.affordable(spent_us)
        return max(smallest, min(affordable, self._max_chunk_tokens))

    def chunk_scheduled(self, num_tokens: int) -> None:
        """A chunk goes out between decode steps: it uses up what they earned, and what the next
        ones will. One that turns out far larger than any is paid back no longer than one is."""
        worthwhile_us = self._cost_us(self._worthwhile_tokens(self._longest_us))
        most_owed_us = max(self._decode_us or 0.0, worthwhile_us)
        self._credit_us = max(self._credit_us - self._cost_us(num_tokens), -most_owed_us)

    def _longest_chunk_us(self, num_lanes: int) -> float:
        """Stage time of the longest chunk that keeps running streams at their pace.

        With `n` lanes a round takes n steps' time. The lane behind a chunk waits for it at each of
        `s` stages, and then takes its own step: s * chunk + step <= (1 + share) * n * step.
        """
        num_in_round = max(num_lanes, self._num_stages)
        steps = ((1 + PREFILL_SHARE) * num_in_round - 1) / self._num_stages
        return max(PREFILL_SHARE, steps) * (self._decode_us or 0.0)

    def _worthwhile_tokens(self, longest_us: float) -> int:
        """The smallest chunk that is worth its trip."""
        tokens = self._cost.worthwhile(WORTHWHILE)
        if self._cost_us(tokens) > longest_us:
            tokens = self._cost.worthwhile(BARELY_WORTHWHILE)
            if self._cost_us(tokens) > BY_FAR * longest_us:
                tokens = self._cost.worthwhile(WELL_WORTHWHILE)
        return max(1, min(tokens, self._max_chunk_tokens))

    def _best_of(self, line: Line, num_waiting_tokens: int) -> int:
        """The best size of a filling chunk within the sizes of a line: where the derivative of the
        trip's time is 0, (waiting / c + s - 1)(fixed + c * per_token)."""
        ratio = max(0.0, line.fixed_us) / line.token_us
        best = math.sqrt(num_waiting_tokens * ratio / (self._num_stages - 1))
        return math.ceil(min(max(best, line.begin), line.end, self._max_chunk_tokens))

    def _cost_us(self, num_tokens: int) -> float:
        return self._cost.of(num_tokens)

    def _within_bounds(self, num_tokens: int) -> int:
        return min(max(num_tokens, MIN_CHUNK_TOKENS), self._max_chunk_tokens)
