"""How a worker process meets the one that started it, hears from it and ends with it.

A worker lives exactly as long as the process that started it wants it to: its standard input is
watched, and when that ends the worker ends, whatever it is doing. Nothing here imports MLX.
"""

import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from tbcluster.errors import TbclusterError
from tbcluster.wire.control import STOP_LINE, Report, Spec, decode_spec, encode_line

logger = logging.getLogger(__name__)


class Reporter:
    """Writes reports to what was standard output; prints of libraries go to standard error."""

    def __init__(self) -> None:
        self._out: BinaryIO = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        self._lock = threading.Lock()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def __call__(self, report: Report) -> None:
        """Thread-safe."""
        with self._lock:
            self._out.write(encode_line(report))


def meet_parent() -> tuple[RawIOBase, Reporter]:
    """What every worker process does first: take the pipes to its parent.

    The input is unbuffered because a thread will still be reading it when the interpreter exits,
    which Python does not allow with a buffered one.
    """
    return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False), Reporter()


def read_spec(stdin: RawIOBase, kind: type[Spec]) -> Spec:
    """What the parent wants done. One that is gone before it has said so ends this process."""
    line = stdin.readline()
    if not line.endswith(b"\n"):
        sys.exit(0)
    return decode_spec(line, kind)


def follow_parent(
    stdin: RawIOBase, run_dir: Path | None, on_line: Callable[[bytes], None] = lambda _: None
) -> None:
    """End this process when the parent says so or is gone; in the latter case the sockets of the
    run are nobody's any more and are removed. `on_line` gets whatever else the parent says."""

    def watch() -> None:
        while (line := stdin.readline()) not in (b"", STOP_LINE):
            try:
                on_line(line)
            except TbclusterError as error:
                logger.error("%s", error)
        if run_dir is not None and line != STOP_LINE:
            shutil.rmtree(run_dir, ignore_errors=True)
        # Past Python's own exit, which would wait for the compute thread.
        os._exit(0)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()
