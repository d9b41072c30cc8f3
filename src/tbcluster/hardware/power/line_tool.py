"""A tool that goes on printing lines while it is watched."""

import subprocess
import threading
from collections.abc import Callable, Sequence

END_S = 2.0


class LineTool:
    """Runs a tool by its absolute path, and hands on each line in a thread of its own. A tool whose
    reader is gone ends at its next line.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, command: Sequence[str], on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C is for this process alone.
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._read, name="line-tool", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(END_S)

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        with self._process.stdout as lines:
            for line in lines:
                self._on_line(line)
