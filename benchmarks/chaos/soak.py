"""The soak: faults at their times, clients beside them, and what came of it."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from benchmarks.chaos.clients import Clients
from benchmarks.chaos.faults import EARLY, Fault, Faults
from benchmarks.chaos.ground import Ground, stages_of, words
from benchmarks.chaos.leaks import Inventory, inventory, leaks
from benchmarks.chaos.report import FaultRecord, SoakReport
from tests.doubles.waiting import wait_until

NUM_TOKENS = 160
# How much of the soak goes by before memory is looked at for the first time: since they were killed
# last, who lives long has recovered from a few faults.
WARM_UP = EARLY + 0.1
# A rack that is not well for so long after the last fault does not recover.
RECOVERY_S = 120.0
# Workers that nobody needs any more are kept for a minute.
SETTLED_S = 100.0
# Until another fault is drawn for one that had nothing to hit.
MISSED_S = 0.5

OnProgress = Callable[[SoakReport, str], None]


class Soak:
    """One run.

    Args:
        num_faults: Spread over the time.
        on_progress: Called a few times a second.
    """

    def __init__(
        self, ground: Ground, report: SoakReport, num_faults: int, on_progress: OnProgress
    ) -> None:
        self._ground = ground
        self._report = report
        self._num_faults = num_faults
        self._on_progress = on_progress
        self._is_over = threading.Event()
        self._faults = Faults(ground, report.seed, self._is_over)
        self._clients = Clients(ground, NUM_TOKENS)
        self._started = 0.0
        self._warm: Inventory | None = None

    def run(self) -> None:
        """To the end, or until Ctrl-C."""
        self._report.counts = self._clients.counts
        self._ground.serve()
        self._clients.learn()
        before = inventory(self._ground)
        self._clients.start()
        self._started = time.monotonic()
        with suppress(KeyboardInterrupt):
            self._make_faults()
        self._is_over.set()
        if self._warm is not None:
            before = replace(
                before, memory_mb=self._warm.memory_mb, open_files=self._warm.open_files
            )
        self._settle(before)

    def _make_faults(self) -> None:
        every_s = self._report.minutes * 60 / self._num_faults
        num_warm_up = round(self._num_faults * WARM_UP)
        for number in range(self._num_faults):
            due = self._started + number * every_s + self._faults.jitter(every_s / 2)
            self._wait_until(due)
            self._make_one(number / self._num_faults)
            if number + 1 == num_warm_up:
                self._await_well()
                self._warm = inventory(self._ground)
        self._wait_until(self._started + self._report.minutes * 60)

    def _make_one(self, progress: float) -> None:
        """One fault; where what was drawn has nothing to hit, another one."""
        give_up = time.monotonic() + RECOVERY_S
        while not self._make(self._faults.draw(progress)):
            # Nobody answers: a coordinator is on its way back, and nothing is known of workers.
            self._report.num_missed += 1
            if time.monotonic() > give_up:
                self._report.problems.append(f"nothing could be hit for {RECOVERY_S:g} s")
                return
            self._wait_until(time.monotonic() + MISSED_S)

    def _make(self, fault: Fault) -> bool:
        """Whether it came about."""
        started = time.monotonic()
        if fault.breaks_streams:
            self._clients.kills.append(started)
        hit = fault.perform()
        if hit is None:
            return False
        self._report.faults.append(FaultRecord(started - self._started, fault.name, hit))
        return True

    def _settle(self, before: Inventory) -> None:
        """Let everything come to rest, and look what is left."""
        self._await_well()
        self._clients.stop()
        self._note_pauses()
        found: list[str] = []
        after = before

        def is_as_before() -> bool:
            nonlocal after
            self._on_progress(self._report, "waiting for what is left to end")
            after = inventory(self._ground)
            found[:] = leaks(before, after, len(stages_of(self._ground)))
            return not found

        with suppress(AssertionError):
            wait_until(is_as_before, "everything is as before", SETTLED_S)
        self._report.before, self._report.after = before, after
        self._report.problems += found

    def _note_pauses(self) -> None:
        faults = self._report.faults
        ends = [fault.at_s for fault in faults[1:]] + [self._report.minutes * 60 + RECOVERY_S]
        for fault, end in zip(faults, ends, strict=True):
            times = self._started + fault.at_s, self._started + end
            fault.pause_s = self._clients.pause_after(*times)

    def _await_well(self) -> None:
        try:
            self._ground.await_well(RECOVERY_S)
        except AssertionError as error:
            self._report.problems.append(f"it does not recover: {error}")

    def _wait_until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0:
            self._on_progress(self._report, words(self._ground.health()))
            self._is_over.wait(min(left, 0.5))
