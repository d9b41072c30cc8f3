"""What the process of an errand does for its agent, whatever the errand: one spec comes in, reports
go out, and it ends when the agent says so or is gone."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from io import RawIOBase

from tbcluster.errors import TbclusterError
from tbcluster.wire.control import STOP_LINE, Failed, Report, Spec, decode_spec, encode_line

OnReport = Callable[[Report], None]


def run_errand(kind: type[Spec], do: Callable[[Spec, OnReport], Report]) -> int:
    """Do what the agent asks for.

    Args:
        do: Gets the spec and a function that reports, from any thread; its result is the last
            report.

    Returns:
        The process's exit status.
    """
    stdin, report = meet_agent()
    line = stdin.readline()
    if not line.endswith(b"\n"):
        return 0  # the agent was gone before it had said anything
    try:
        spec = decode_spec(line, kind)
        _follow(stdin)
        report(do(spec, report))
    except (TbclusterError, OSError, RuntimeError, MemoryError) as error:
        report(Failed(type(error).__name__, str(error)))
        return 1
    return 0


def meet_agent() -> tuple[RawIOBase, OnReport]:
    """The pipe from the agent, and what writes to the one back. Whatever else is printed goes to
    standard error.

    The input is unbuffered because a thread will still be reading it when the interpreter exits,
    which Python does not allow with a buffered one.
    """
    logging.basicConfig(
        format="tbcluster weights: %(levelname)s %(message)s", level=logging.WARNING
    )
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    lock = threading.Lock()

    def report(report: Report) -> None:
        with lock:
            out.write(encode_line(report))

    return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0), report


def _follow(stdin: RawIOBase) -> None:
    def watch() -> None:
        while stdin.readline() not in (b"", STOP_LINE):
            pass
        # Past Python's own exit, which would wait for threads that are reading from the network.
        os._exit(0)

    threading.Thread(target=watch, name="follow-agent", daemon=True).start()
