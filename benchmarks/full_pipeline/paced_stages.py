"""Stages of unequal speed: how busy the slowest one is kept.

The stages' times are set and not computed (see `benchmarks.paced_stage`): two cores cannot compute
four stages at once.
"""

import os
import queue
import random
import shutil
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.full_pipeline.engines import new_engine, running_engine
from benchmarks.full_pipeline.settings import StageSettings
from benchmarks.full_pipeline.sides import random_model
from benchmarks.full_pipeline.streams import ENDLESS_TOKENS, RunningStreams, random_prompt
from benchmarks.harness import Bar, Report, note
from benchmarks.local_pipeline import stage_ranges
from benchmarks.paced_stage import STAGE_MS
from tbcluster.cluster.places import make_run_dir
from tbcluster.cluster.supervisor import Worker
from tbcluster.core import Request, StageRange
from tbcluster.engine.engine import Engine
from tbcluster.engine.pipeline import Pipeline
from tbcluster.transport.zeromq import ZmqReceiver, ZmqSender
from tbcluster.wire.control import Failed, Ready, Route, Routes, StageSpec
from tests.doubles.text_double import CharacterDetokenizer

BAR = Bar(">=", 0.9, "x")
REPOSITORY = Path(__file__).parents[2]
START_S = 120.0
NUM_PROMPT_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Throughput:
    """One run, in tokens per second; the limit is what the slowest stage alone could do.

    That stage is always busy, with an even share of the streams: as many micro-batches as stages.
    """

    tokens_per_s: float
    limit: float


def measure_paced_stages(report: Report, settings: StageSettings) -> None:
    """Add the rows on stages of unequal speed."""
    with random_model(settings.model) as path, _paced_engine(path, settings) as engine:
        runs = [_run(engine, settings, random.Random(i)) for i in range(1 + settings.num_runs)][1:]
    times = ":".join(f"{ms:g}" for ms in settings.stage_ms)
    name = f"{len(settings.stage_ms)} stages of {times} ms, {settings.num_streams} streams"
    ratios = [run.tokens_per_s / run.limit for run in runs]
    note(f"{name}: shares of the limit " + " ".join(f"{ratio:.3f}" for ratio in ratios))
    report.add(f"{name}: tbcluster", statistics.median(r.tokens_per_s for r in runs), "tok/s")
    report.add(f"{name}: speed / the slowest stage's limit", statistics.median(ratios), "x", BAR)


def _run(engine: Engine, settings: StageSettings, source: random.Random) -> Throughput:
    requests = [_request(settings, source) for _ in range(settings.num_streams)]
    cancel = lambda request: engine.cancel(request.request_id)  # noqa: E731
    with RunningStreams(requests, engine.submit, cancel) as streams:
        window = streams.run(settings.num_steps)
    num_rows = settings.num_streams / len(settings.stage_ms)
    limit = num_rows / max(settings.stage_ms) * 1e3
    return Throughput(streams.tokens_per_s(window), limit)


def _request(settings: StageSettings, source: random.Random) -> Request:
    prompt = random_prompt(source, NUM_PROMPT_TOKENS, settings.model.vocab_size)
    name = f"{source.getrandbits(64):x}"
    return Request(name, tuple(prompt), max_tokens=ENDLESS_TOKENS, cache_prompt=False)


@contextmanager
def _paced_engine(path: Path, settings: StageSettings) -> Iterator[Engine]:
    """An engine over such stages, all on this machine."""
    num_stages, vocab_size = len(settings.stage_ms), settings.model.vocab_size
    os.environ[STAGE_MS] = ",".join(map(str, settings.stage_ms))
    # The supervisor keeps the current folder out of a worker's path.
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    with ExitStack() as stack:
        run_dir = make_run_dir()
        stack.callback(shutil.rmtree, run_dir, ignore_errors=True)
        receiver = ZmqReceiver(f"ipc://{run_dir}/results")
        stack.callback(receiver.close)
        _start_workers(stack, path, run_dir, stage_ranges(path, num_stages))
        sender = ZmqSender(Route(f"ipc://{run_dir}/stage-0"))
        stack.callback(sender.close)
        pipeline = Pipeline(sender, receiver)
        engine = new_engine(pipeline, num_stages, vocab_size, CharacterDetokenizer)
        yield stack.enter_context(running_engine(engine))


def _start_workers(
    stack: ExitStack, path: Path, run_dir: Path, ranges: Sequence[StageRange]
) -> None:
    """Start a worker for each range, and wait until all are ready."""
    reports: queue.SimpleQueue[Ready | Failed | int] = queue.SimpleQueue()
    for index, layers in enumerate(ranges):
        spec = StageSpec(
            index=index,
            num_stages=len(ranges),
            model=str(path),
            layers=layers,
            epoch=1,
            inbound=f"ipc://{run_dir}/stage-{index}",
            run_dir=str(run_dir),
        )
        worker = Worker("benchmarks.paced_stage", spec, reports.put, reports.put)
        stack.callback(worker.stop)
        onward = Route(f"ipc://{run_dir}/stage-{(index + 1) % len(ranges)}")
        worker.route(Routes(1, onward, Route(f"ipc://{run_dir}/results")))
    num_ready = 0
    while num_ready < len(ranges):
        said = reports.get(timeout=START_S)
        assert not isinstance(said, Failed | int), said
        num_ready += isinstance(said, Ready)
