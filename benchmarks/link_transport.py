"""What trains are worth: messages over an encrypted link, cut into small frames and as they are.

CURVE seals and opens each frame as a whole. Both ends are processes on this machine, so there is no
network to overlap with: between machines a train gains its time as well.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Self

from benchmarks.harness import Bar, Report, interleaved_pairs, note_ratios, report_ratio
from benchmarks.link_peer import COUNT, ECHO, KINDS
from tbcluster.transport.curve import new_keys

LARGE_BYTES, SMALL_BYTES = 8 << 20, 16 << 10
LARGE_BAR = Bar("<=", 0.7, "x")
SMALL_BAR = Bar("<=", 1.15, "x")
NUM_PAIRS, QUICK_PAIRS = 21, 5
# A small message takes too little time to be measured alone.
NUM_SMALL = 300

PARTS = {
    "large": "8 MB, hidden states of some hundred tokens of a prompt",
    "small": "16 KB, hidden states of one token",
}


class Link:
    """A process at the far end, as a context manager."""

    def __init__(self, kind: str) -> None:
        keys = new_keys()
        self._end = KINDS[kind](keys)
        self._far = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.link_peer", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._far.stdin is not None
        assert self._far.stdout is not None
        print(json.dumps([self._end.port, keys.public]), file=self._far.stdin, flush=True)
        self._end.connect(*json.loads(self._far.stdout.readline()))

    def ms(self, first: bytes, data: bytes, count: int) -> float:
        """Milliseconds until a message of these two frames is answered, one after the other."""
        started = time.perf_counter()
        for _ in range(count):
            self._end.send([first, data])
            self._end.receive()
        return (time.perf_counter() - started) * 1e3 / count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._far.kill()
        self._far.communicate()
        self._end.close()


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Measure the parts on this machine alone."""
    report = Report("link-transport")
    num_pairs = QUICK_PAIRS if quick else NUM_PAIRS
    with ExitStack() as stack:
        trains, sealed, clear = (stack.enter_context(Link(kind)) for kind in KINDS)
        for part in only or PARTS:
            is_large = part == "large"
            data = os.urandom(LARGE_BYTES if is_large else SMALL_BYTES)
            bar, count = (LARGE_BAR, 1) if is_large else (SMALL_BAR, NUM_SMALL)
            for way, first in (("one way", COUNT), ("there and back", ECHO)):
                side = lambda link, f=first: lambda: link.ms(f, data, count)  # noqa: B023, E731
                what = f"{part}, {way}"
                _measure(report, what, (side(trains), side(sealed), side(clear)), num_pairs, bar)
    return report


def _measure(
    report: Report, what: str, sides: Sequence[Callable[[], float]], num_pairs: int, bar: Bar
) -> None:
    trains, sealed, clear = sides
    pairs = interleaved_pairs(trains, sealed, num_pairs)
    report.add(f"{what}: in trains", statistics.median(first for first, _ in pairs), "ms")
    report.add(f"{what}: as it is", statistics.median(second for _, second in pairs), "ms")
    report_ratio(report, f"{what}: in trains / as it is", pairs, bar)
    pairs = interleaved_pairs(trains, clear, num_pairs)
    note_ratios(f"{what}: in trains / in the clear", pairs)
    report.add(f"{what}: in the clear", statistics.median(second for _, second in pairs), "ms")
