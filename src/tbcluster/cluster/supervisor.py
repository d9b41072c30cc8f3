"""Starts worker processes and reports what they say and how they end. A stage worker that does not
get any further is killed: whatever is wrong with one, it ends."""

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from tbcluster.cluster.pulse import TICK_S, Patience
from tbcluster.cluster.vitals import Vitals, describe_exit
from tbcluster.cluster.worker_watch import worker_watch
from tbcluster.errors import StageError, WireError
from tbcluster.wire.control import (
    STOP_LINE,
    Beat,
    Bound,
    Ready,
    ReferenceSpec,
    Report,
    Routed,
    Routes,
    StageSpec,
    WorkerSpec,
    decode_report,
    encode_line,
)
from tbcluster.wire.errands import Accepted, ShareSpec

logger = logging.getLogger(__name__)

STOP_GRACE_S = 5.0
# A process that waits in the kernel, for a GPU say, may not even end by SIGKILL.
KILL_GRACE_S = 10.0
# What a stage worker says of the place that it has, not of what it holds.
OF_A_PLACE = (Bound, Routed, Ready)


class Worker:
    """A child process that speaks `wire.control`.

    Args:
        module: What to run, `tbcluster.stage` say.
        spec: A stage worker, which beats, is watched until it ends.
        on_report: Called with each report but `Beat`, in a thread of this object's.
        on_exit: Called once with how it ended, in words, after the last report.
        patience: How long to wait for a stage worker that says nothing.

    Raises:
        StageError: The system has no room for another process.
    """

    def __init__(
        self,
        module: str,
        spec: WorkerSpec | ReferenceSpec | ShareSpec,
        on_report: Callable[[Report], None],
        on_exit: Callable[[str], None],
        patience: Patience | None = None,
    ) -> None:
        self._on_report = on_report
        self._on_exit = on_exit
        self._spec = spec
        self._vitals = Vitals(spec, patience) if isinstance(spec, StageSpec) else None
        # How many places it was given after its first, and which of them it has taken.
        self._num_moves = self._place = 0
        # Held while a report is passed on: what is about an old place goes to who listened then.
        self._hear_lock = threading.Lock()
        self._why_killed: str | None = None
        self._looks_since = 0
        self._end_lock = threading.Lock()
        self._has_ended = False
        self._process = _start_process(module)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: PT018, S101 - both are pipes
        self._stdin, self._stdout = stdin, stdout
        self._tell_lock = threading.Lock()
        self._tell(encode_line(spec))
        self._reader = threading.Thread(target=self._read, name=f"{module}-reports", daemon=True)
        if self._vitals is not None:
            worker_watch.add(self._look)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def spec(self) -> WorkerSpec | ReferenceSpec | ShareSpec:
        """What it was told to do last."""
        return self._spec

    def assign(self, spec: StageSpec, on_report: Callable[[Report], None]) -> None:
        """Give a stage worker another place among the stages, with the shard that it holds. It says
        `Bound` and `Ready` once more; what it was computing is forgotten.

        Args:
            on_report: Called from now on, with nothing that is about an earlier place.
        """
        with self._hear_lock:
            self._spec, self._on_report = spec, on_report
            self._num_moves += 1
        if self._vitals is not None:
            self._vitals.pulse.step_limit_s = spec.step_limit_s
        self._tell(encode_line(spec))

    def route(self, routes: Routes) -> None:
        """Tell a stage worker where its messages go from now on."""
        self._tell(encode_line(routes))

    def accept(self, accepted: Accepted) -> None:
        """Tell the server of this node's weights who may copy from now on."""
        self._tell(encode_line(accepted))

    def ask_to_stop(self) -> None:
        """Tell the worker to end; it does so at once, whatever it is computing."""
        self._tell(STOP_LINE)

    def join(self) -> None:
        """Wait until the process has ended, killing it if it takes too long. One that does not even
        end then is left to the system."""
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        if threading.current_thread() is self._reader:
            return
        self._reader.join(KILL_GRACE_S)
        if self._reader.is_alive():
            logger.error("process %d was killed and has not ended", self._process.pid)

    def stop(self) -> None:
        """`ask_to_stop`, then `join`."""
        self.ask_to_stop()
        self.join()

    def _tell(self, line: bytes) -> None:
        try:
            with self._tell_lock:
                self._stdin.write(line)
                self._stdin.flush()
        except (BrokenPipeError, ValueError):
            return  # it has ended already; `on_exit` tells

    def _read(self) -> None:
        for line in self._stdout:
            try:
                self._hear(decode_report(line))
            except WireError:
                # Something printed past the worker's redirection.
                sys.stderr.write(line.decode(errors="replace"))
        status = self._process.wait()
        worker_watch.remove(self._look)
        self._stdout.close()
        with suppress(BrokenPipeError):  # a line that it never read is still in the buffer
            self._stdin.close()
        self._end(status)

    def _hear(self, report: Report) -> None:
        if self._vitals is not None:
            self._vitals.heard(report)
        with self._hear_lock:
            if isinstance(report, Bound):
                self._place = report.place
            is_old = isinstance(report, OF_A_PLACE) and self._place != self._num_moves
            if not (is_old or isinstance(report, Beat) or self._has_ended):
                self._on_report(report)

    def _end(self, status: int) -> None:
        if self._why_killed is not None and status == -signal.SIGKILL:
            self._tell_end(f"was killed: {self._why_killed}")
        elif self._vitals is None:
            self._tell_end(describe_exit(status))
        else:
            failure = self._vitals.failure(status)
            if failure is not None:
                self._on_report(failure)
            self._tell_end(self._vitals.describe(status))

    def _tell_end(self, what: str) -> None:
        with self._end_lock:
            was_told, self._has_ended = self._has_ended, True
        if not was_told:
            self._on_exit(what)

    def _look(self, now: float) -> None:
        """In the watching thread."""
        assert self._vitals is not None  # noqa: S101 - only then it is watched
        if self._why_killed is None:
            why = self._vitals.pulse.ticked(now)
            if why is not None and self._process.poll() is None:
                self._why_killed = why
                # The one signal that ends a process that was stopped, too.
                self._process.kill()
            return
        self._looks_since += 1
        if self._looks_since * TICK_S > KILL_GRACE_S:
            worker_watch.remove(self._look)
            self._tell_end(f"was killed, but has not ended yet: {self._why_killed}")


def _start_process(module: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A group of its own: a terminal's Ctrl-C goes to the parent alone, which decides.
            process_group=0,
        )
    except OSError as error:
        raise StageError(f"cannot start a worker process: {error.strerror}") from error
