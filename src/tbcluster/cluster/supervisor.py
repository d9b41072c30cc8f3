"""Starts worker processes and reports what they say and how they end."""

import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from tbcluster.errors import StageError, WireError
from tbcluster.wire.control import (
    STOP_LINE,
    ReferenceSpec,
    Report,
    Routes,
    WorkerSpec,
    decode_report,
    encode_line,
)
from tbcluster.wire.errands import Accepted, ShareSpec

STOP_GRACE_S = 5.0


class Worker:
    """A child process that speaks `wire.control`.

    Args:
        module: What to run, `tbcluster.stage` say.
        on_report: Called with each report, in a thread of this object's.
        on_exit: Called once with the exit status (negative: the signal), after the last report.

    Raises:
        StageError: The system has no room for another process.
    """

    def __init__(
        self,
        module: str,
        spec: WorkerSpec | ReferenceSpec | ShareSpec,
        on_report: Callable[[Report], None],
        on_exit: Callable[[int], None],
    ) -> None:
        self._on_report = on_report
        self._on_exit = on_exit
        self._process = _start_process(module)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: PT018, S101 - both are pipes
        self._stdin, self._stdout = stdin, stdout
        self._tell_lock = threading.Lock()
        self._tell(encode_line(spec))
        self._reader = threading.Thread(target=self._read, name=f"{module}-reports", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

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
        """Wait until the process has ended, killing it if it takes too long."""
        try:
            self._process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if threading.current_thread() is not self._reader:
            self._reader.join()

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
                self._on_report(decode_report(line))
            except WireError:
                # Something printed past the worker's redirection.
                sys.stderr.write(line.decode(errors="replace"))
        status = self._process.wait()
        self._stdout.close()
        with suppress(BrokenPipeError):  # a line that it never read is still in the buffer
            self._stdin.close()
        self._on_exit(status)


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


def describe_exit(status: int) -> str:
    """An exit status in words."""
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
