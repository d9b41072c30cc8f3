"""The loop of a stage worker: one compute thread; libzmq's own thread sends and receives.

A worker lives exactly as long as the process that started it wants it to: its standard input is
watched, and when that ends the worker ends, whatever it is doing.
"""

import logging
import os
import shutil
import sys
import threading
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO

from tbcluster.errors import TbclusterError, WireError
from tbcluster.model.device import peak_memory_bytes, prepare_device
from tbcluster.model.loading import load_stage
from tbcluster.stage.executor import StageExecutor
from tbcluster.transport.zeromq import ZmqReceiver, ZmqSender
from tbcluster.wire.control import (
    STOP_LINE,
    Failed,
    Loading,
    Ready,
    Report,
    StageSpec,
    decode_spec,
    encode_line,
)
from tbcluster.wire.messages import Result, decode_step, encode_result, encode_step

logger = logging.getLogger(__name__)

MAX_LOGGED_DROPS = 100


class Reporter:
    """Writes reports to what was standard output; prints of libraries go to standard error."""

    def __init__(self) -> None:
        self._out: BinaryIO = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def __call__(self, report: Report) -> None:
        self._out.write(encode_line(report))


def meet_parent() -> tuple[RawIOBase, Reporter]:
    """What every worker process does first: take the pipes to its parent.

    The input is unbuffered because a thread will still be reading it when the interpreter exits,
    which Python does not allow with a buffered one.
    """
    return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False), Reporter()


def follow_parent(stdin: RawIOBase, run_dir: Path | None) -> None:
    """End this process when the parent says so or is gone; in the latter case the sockets of the
    run are nobody's any more and are removed."""

    def watch() -> None:
        was_told = stdin.readline() == STOP_LINE
        if run_dir is not None and not was_told:
            shutil.rmtree(run_dir, ignore_errors=True)
        # Past Python's own exit, which would wait for the compute thread.
        os._exit(0)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


def main() -> int:
    """Entry point of `python -m tbcluster.stage`."""
    stdin, report = meet_parent()
    logging.basicConfig(format="tbcluster stage: %(levelname)s %(message)s", level=logging.WARNING)
    spec = decode_spec(stdin.readline(), StageSpec)
    follow_parent(stdin, Path(spec.run_dir))
    try:
        serve(spec, report)
    except (TbclusterError, OSError, RuntimeError, MemoryError) as error:
        report(Failed(type(error).__name__, str(error)))
        return 1
    return 0


def serve(spec: StageSpec, report: Reporter) -> None:
    """Load the stage and run steps until the process is ended."""
    device = prepare_device()
    receiver = ZmqReceiver(spec.inbound)
    model = load_stage(
        Path(spec.model_path),
        spec.layers,
        device,
        lambda loaded, total: report(Loading(loaded, total)),
    )
    executor = StageExecutor(model, spec.index, spec.num_stages, spec.epoch)
    to_next = ZmqSender(spec.next_stage)
    to_coordinator = ZmqSender(spec.results)
    report(Ready(peak_memory_bytes(), device.backend, device.note))
    num_dropped = 0
    while True:
        frames = receiver.receive(None)
        if frames is None:
            continue
        try:
            output = executor.run(decode_step(frames))
        except WireError as error:
            num_dropped += 1
            if num_dropped <= MAX_LOGGED_DROPS:
                logger.warning("stage %d dropped message %d: %s", spec.index, num_dropped, error)
            continue
        if isinstance(output, Result):
            to_coordinator.send(encode_result(output))
        elif output is not None:
            to_next.send(encode_step(output))
