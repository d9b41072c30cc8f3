"""How large a prompt chunk may be. Pure: it learns from what the stages report.

The time a stage takes for a chunk is close to a line: a fixed part (reading the weights) and a part
per token.
"""

import math

from tbcluster.core import MAX_CHUNK_TOKENS

MIN_CHUNK_TOKENS = 32
# Until anything was measured.
FIRST_CHUNK_TOKENS = 256
# From chunks of fewer tokens nothing is learned about larger ones.
TELLING_TOKENS = 4.0
# One step that takes far longer than expected was disturbed: a worker that has just been started
# reads weights and compiles meanwhile. It counts no more than this many times what was expected.
MAX_SURPRISE = 3.0
# How much of a moving average is left after the next observation.
KEPT = 0.7
# Stage time that chunks may take for each unit that decode steps take: running streams then go at
# half their pace while a prompt comes in, and the prompt at half of its own.
PREFILL_SHARE = 1.0


class _Line:
    """Stage time over tokens, through two points: a decode step of few rows, which is mostly the
    fixed part, and the average of the latest prompt chunks.

    Not a fit over chunks alone: those late in a prompt take longer for their context, which a fit
    mistakes for a large fixed part.
    """

    def __init__(self) -> None:
        self._few_rows: tuple[float, float] | None = None
        self._chunks: tuple[float, float] | None = None

    @property
    def is_empty(self) -> bool:
        return self._chunks is None

    def add_chunk(self, num_tokens: int, us: float) -> None:
        before = self._chunks or (num_tokens, us)
        if self._chunks is not None:
            fixed_us, token_us = self.fit()
            us = min(us, MAX_SURPRISE * (fixed_us + num_tokens * token_us))
        self._chunks = _towards(before[0], num_tokens), _towards(before[1], us)

    def add_decode(self, num_rows: int, us: float) -> None:
        rows, before = self._few_rows or (num_rows, us)
        if num_rows < rows:
            self._few_rows = num_rows, us
        elif num_rows == rows:
            self._few_rows = rows, _towards(before, us)

    def fit(self) -> tuple[float, float]:
        """Microseconds of the fixed part and of each token, both above 0."""
        rows, rows_us = self._few_rows or (0.0, 0.0)
        tokens, us = self._chunks or (1.0, rows_us)
        # Points that lie close together say nothing about the line's slope.
        if rows and tokens >= rows + 1 and us > rows_us:
            token_us = (us - rows_us) / (tokens - rows)
        else:
            # One point only: as if half of the time were fixed. Smaller chunks than can teach
            # anything would be all there ever is.
            token_us = us / (2 * max(tokens, TELLING_TOKENS))
        return max(us - tokens * token_us, 1.0), max(token_us, 1e-3)


def _towards(old: float, new: float) -> float:
    """Moving average."""
    return KEPT * old + (1 - KEPT) * new


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
        self._line = _Line()
        self._decode_us: float | None = None
        self._credit_us = 0.0

    def observe_decode(self, num_rows: int, stage_us: float) -> None:
        """A decode step took this long on the stage that took longest."""
        if self._decode_us is not None:
            stage_us = min(stage_us, MAX_SURPRISE * self._decode_us)
        before = stage_us if self._decode_us is None else self._decode_us
        self._decode_us = _towards(before, stage_us)
        self._line.add_decode(num_rows, stage_us)

    def observe_chunk(self, num_tokens: int, stage_us: float) -> None:
        """A prompt chunk took this long on the stage that took longest."""
        self._line.add_chunk(num_tokens, stage_us)

    def decode_scheduled(self, num_lanes: int) -> None:
        """A lane's step goes out: it earns stage time for prompt chunks."""
        earned_us = self._credit_us + PREFILL_SHARE * (self._decode_us or 0.0)
        self._credit_us = min(earned_us, self._longest_chunk_us(num_lanes))

    def filling_chunk(self, num_waiting_tokens: int) -> int:
        """Size of a chunk while no stream is running.

        `k` chunks of `c` tokens through `s` stages take (k + s - 1)(fixed + c * per_token). With
        k = waiting / c that is least for c = sqrt(waiting * fixed / ((s - 1) * per_token)).
        """
        if self._num_stages == 1:
            return self._max_chunk_tokens
        if self._line.is_empty:
            return min(FIRST_CHUNK_TOKENS, self._max_chunk_tokens)
        fixed_us, token_us = self._line.fit()
        best = math.sqrt(num_waiting_tokens * fixed_us / ((self._num_stages - 1) * token_us))
        return self._within_bounds(math.ceil(best))

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
        fixed_us, token_us = self._line.fit()
        spent_us = PREFILL_SHARE * self._decode_us if has_gap else self._credit_us
        affordable = int((spent_us - fixed_us) / token_us)
        return max(smallest, min(affordable, self._max_chunk_tokens))

    def chunk_scheduled(self, num_tokens: int) -> None:
        """A chunk goes out between decode steps: it uses up what they earned."""
        self._credit_us = max(
            self._credit_us - self._cost_us(num_tokens), -(self._decode_us or 0.0)
        )

    def _longest_chunk_us(self, num_lanes: int) -> float:
        """Stage time of the longest chunk that keeps running streams at their pace.

        With `n` lanes a round takes n steps' time. The lane behind a chunk waits for it at each of
        `s` stages, and then takes its own step: s * chunk + step <= (1 + share) * n * step.
        """
        num_in_round = max(num_lanes, self._num_stages)
        steps = ((1 + PREFILL_SHARE) * num_in_round - 1) / self._num_stages
        return max(PREFILL_SHARE, steps) * (self._decode_us or 0.0)

    def _worthwhile_tokens(self, longest_us: float) -> int:
        """A chunk's tokens should take as long as its fixed part, at the least half as long."""
        fixed_us, token_us = self._line.fit()
        even = math.ceil(fixed_us / token_us)
        tokens = even if self._cost_us(even) <= longest_us else math.ceil(even / 2)
        return max(1, min(tokens, self._max_chunk_tokens))

    def _cost_us(self, num_tokens: int) -> float:
        fixed_us, token_us = self._line.fit()
        return fixed_us + num_tokens * token_us

    def _within_bounds(self, num_tokens: int) -> int:
        return min(max(num_tokens, MIN_CHUNK_TOKENS), self._max_chunk_tokens)
