"""Stage time of a prompt chunk over its tokens, learned from what stages report. Pure.

A dense model's is close to a line: a fixed part (reading the weights) and a part per token. That of
a mixture of experts rises steeply at first, with the experts that are read, and slowly once all
are. So it is a chain of lines, through averages of chunks of about the same size.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

# From chunks of fewer tokens nothing is learned about larger ones.
TELLING_TOKENS = 4.0
# One step that takes far longer than expected was disturbed: a worker that has just been started
# reads weights and compiles meanwhile. It counts no more than this many times what was expected.
MAX_SURPRISE = 3.0
# How much of a moving average is left after the next observation.
KEPT = 0.7
# What was not seen again in so many chunks is forgotten: machines get hot, contexts long.
MEMORY_CHUNKS = 64
# Behind the largest chunk that is known a token takes no less than this share of what its tokens
# took on average: two sizes that lie close together say little about the slope.
LEAST_SLOPE = 1 / 8
LEAST_TOKEN_US, LEAST_US = 1e-3, 1.0


class Line(NamedTuple):
    """Microseconds of chunks from `begin` to `end` tokens: `fixed_us` and `token_us` for each."""

    begin: float
    end: float
    fixed_us: float
    token_us: float

    def at(self, num_tokens: float) -> float:
        """Microseconds of a chunk."""
        return self.fixed_us + num_tokens * self.token_us


@dataclass(slots=True)
class _Average:
    tokens: float
    us: float
    seen_at: int

    def add(self, num_tokens: float, us: float, now: int) -> None:
        self.tokens = towards(self.tokens, num_tokens)
        self.us = towards(self.us, us)
        self.seen_at = now


class ChunkCost:
    """Learns from chunks, and from decode steps of few rows, which tell the cost of next to no
    tokens."""

    def __init__(self) -> None:
        self._few_rows: tuple[float, float] | None = None
        self._chunks: dict[int, _Average] = {}
        self._num_chunks = 0
        self._lines: tuple[Line, ...] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether no chunk was seen."""
        return not self._chunks

    def add_chunk(self, num_tokens: int, us: float) -> None:
        """A chunk took so long on the stage that took longest."""
        if self._chunks:
            us = min(us, MAX_SURPRISE * self.of(num_tokens))
        self._num_chunks += 1
        size = round(math.log2(num_tokens))
        known = self._chunks.setdefault(size, _Average(num_tokens, us, self._num_chunks))
        known.add(num_tokens, us, self._num_chunks)
        oldest = self._num_chunks - MEMORY_CHUNKS
        self._chunks = {size: one for size, one in self._chunks.items() if one.seen_at > oldest}
        self._lines = None

    def add_decode(self, num_rows: int, us: float) -> None:
        """A decode step of so many rows took so long on that stage."""
        rows, before = self._few_rows or (num_rows, us)
        if num_rows < rows:
            self._few_rows = num_rows, us
        elif num_rows == rows:
            self._few_rows = rows, towards(before, us)
        self._lines = None

    def of(self, num_tokens: float) -> float:
        """Microseconds that a chunk would take."""
        return next(line for line in self.lines if num_tokens <= line.end).at(num_tokens)

    def affordable(self, us: float) -> int:
        """Tokens of the largest chunk that takes no longer; may be 0 or less."""
        line = next((one for one in reversed(self.lines) if one.at(one.begin) <= us), self.lines[0])
        return int(min(line.end, (us - line.fixed_us) / line.token_us))

    def worthwhile(self, factor: float) -> int:
        """Tokens of the smallest chunk whose tokens cost no more than so many times what each would
        add to a large one."""
        least_us = factor * self.lines[-1].token_us
        for line in self.lines:
            # least_us * n >= fixed + token * n
            gain_us = least_us - line.token_us
            found = line.fixed_us / gain_us if gain_us > 0 else math.inf
            if found <= line.end:
                return math.ceil(max(line.begin, found))
        return math.ceil(self.lines[-1].begin)

    @property
    def lines(self) -> tuple[Line, ...]:
        """From no tokens to any number of them, without gaps."""
        if self._lines is None:
            points = self._points()
            self._lines = _through(points, few_rows=len(points) > len(self._averages()))
        return self._lines

    def _averages(self) -> list[tuple[float, float]]:
        points: list[tuple[float, float]] = []
        for one in sorted(self._chunks.values(), key=lambda one: one.tokens):
            if not points or one.tokens >= points[-1][0] + 1:
                # More tokens take no less time: where they seem to, both are noise.
                points.append((one.tokens, max(one.us, points[-1][1] if points else LEAST_US)))
        return points

    def _points(self) -> list[tuple[float, float]]:
        """(tokens, microseconds), both ascending."""
        points = self._averages()
        rows, rows_us = self._few_rows or (0.0, 0.0)
        rows_us = max(rows_us, LEAST_US)
        if not points:
            return [(1.0, rows_us)]
        # Points that lie close together say nothing about a line's slope.
        if rows and points[0][0] >= rows + 1 and points[0][1] > rows_us:
            return [(rows, rows_us), *points]
        return points


def _through(points: list[tuple[float, float]], *, few_rows: bool) -> tuple[Line, ...]:
    """A line between every two, and one beyond the last.

    Args:
        few_rows: Whether the first point is a decode step's.
    """
    if len(points) == 1:
        ((tokens, us),) = points
        # As if half of the time were fixed. Smaller chunks than can teach anything would be all
        # there ever is.
        slope = us / (2 * max(tokens, TELLING_TOKENS))
        return (_line(0.0, math.inf, points[0], slope),)
    lines = [
        _line(point[0], more[0], more, (more[1] - point[1]) / (more[0] - point[0]))
        for point, more in pairwise(points)
    ]
    tokens, us = points[-1]
    slope = lines[-1].token_us
    # From next to no tokens to a chunk is far enough.
    if not few_rows or len(points) > 2:
        slope = max(slope, LEAST_SLOPE * us / tokens)
    return (*_down_to_none(lines[0]), *lines[1:], _line(tokens, math.inf, points[-1], slope))


def _down_to_none(first: Line) -> tuple[Line, ...]:
    """The first line as it is, where some of it is fixed; else with one more before it."""
    if first.fixed_us >= LEAST_US:
        return (first._replace(begin=0.0),)
    slope = (first.at(first.begin) - LEAST_US) / first.begin
    return _line(0.0, first.begin, (0.0, LEAST_US), slope), first


def _line(begin: float, end: float, point: tuple[float, float], slope: float) -> Line:
    """Through a point, with this slope."""
    token_us = max(slope, LEAST_TOKEN_US)
    return Line(begin, end, point[1] - point[0] * token_us, token_us)


def towards(old: float, new: float) -> float:
    """Moving average."""
    return KEPT * old + (1 - KEPT) * new
