"""A process of our own for what cannot be interrupted in a thread; it ends when this one does."""

import os
import subprocess
import sys
import threading


def run_companion(module: str, *arguments: str) -> tuple[int, bytes]:
    """Run `python -m module` to its end; its standard error is ours. It is killed when this
    thread is interrupted, and ends by itself when this process is gone.

    Returns:
        Its exit status, negative for a signal, and its standard output.

    Raises:
        OSError: It cannot be started.
    """
    with subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Ctrl-C is for this process alone, which then ends the other without its traceback.
        start_new_session=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            # Its input stays open to the end: that is how it knows that this process is there.
            said = process.stdout.read()
            process.wait()
        except BaseException:
            process.kill()
            raise
    return process.returncode, said


def end_with_parent() -> None:
    """For the process that `run_companion` started: end when its standard input does."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        # Past Python's own exit, which would wait for threads that are reading from the network.
        os._exit(1)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()
