"""`python -m benchmarks.paced_stage`: a stage worker whose steps take a set time.

It is the real worker; what it computes is small, and it waits for what is left of the time. So more
stages than cores can be measured, as if each had a machine of its own.
"""

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tbcluster.model.device import peak_memory_bytes, prepare_device
from tbcluster.model.loading import load_stage
from tbcluster.stage.beats import Work, start_beating
from tbcluster.stage.cache_store import CacheStore
from tbcluster.stage.executor import BegunStep, StageExecutor
from tbcluster.stage.orders import Orders
from tbcluster.stage.parent import follow_parent, meet_parent, read_spec
from tbcluster.stage.steps import run_steps
from tbcluster.transport.zeromq import ZmqReceiver
from tbcluster.wire.control import Loading, Ready, Report, StageSpec
from tbcluster.wire.messages import Result, Step

# Milliseconds of each stage, separated by commas.
STAGE_MS = "TBCLUSTER_BENCHMARK_STAGE_MS"


class PacedExecutor(StageExecutor):
    """One micro-batch after the other, each for `step_s` seconds whatever its size."""

    def __init__(self, step_s: float, *args: Any) -> None:
        super().__init__(*args)
        self._step_s = step_s
        self._busy_until = 0.0
        self._ends: dict[int, float] = {}

    def begin(self, step: Step, *, is_alone: bool = True) -> BegunStep | None:
        if step.micro_batch is not None:
            self._busy_until = max(self._busy_until, time.perf_counter()) + self._step_s
            self._ends[step.step_id] = self._busy_until
        return super().begin(step, is_alone=is_alone)

    def finish(self, begun: BegunStep) -> Step | Result:
        left_s = self._ends.pop(begun.step.step_id, 0.0) - time.perf_counter()
        time.sleep(max(0.0, left_s))
        return super().finish(begun)


def main() -> None:
    """As `tbcluster.stage.worker.main`, with the other executor."""
    stdin, report = meet_parent()
    work = start_beating(report)
    logging.basicConfig(format="paced stage: %(levelname)s %(message)s", level=logging.WARNING)
    spec = read_spec(stdin, StageSpec)
    orders = Orders(spec, report)
    follow_parent(stdin, Path(spec.run_dir), orders.follow)
    _serve(orders, report, work, float(os.environ[STAGE_MS].split(",")[spec.index]) / 1e3)


def _serve(orders: Orders, report: Callable[[Report], None], work: Work, step_s: float) -> None:
    spec = orders.place.spec
    device = prepare_device()
    receiver = ZmqReceiver(spec.inbound)
    model = load_stage(
        Path(spec.model),
        spec.layers,
        device,
        lambda loaded, total: report(Loading(loaded, total)),
    )
    caches = CacheStore(model.make_cache, None)
    executor = PacedExecutor(step_s, model, caches, spec.index, spec.num_stages, spec.epoch)
    report(Ready(peak_memory_bytes(), device.backend, device.note))
    run_steps(executor, receiver, orders.place.exits.outbound, spec.index, work)


if __name__ == "__main__":
    sys.exit(main())
