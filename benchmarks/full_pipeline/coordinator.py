"""The coordinator's own time per step, with stages that answer at once and compute nothing."""

import statistics
import time
from collections.abc import Callable, Sequence

from benchmarks.full_pipeline.engines import new_engine
from benchmarks.full_pipeline.settings import CoordinatorSettings
from benchmarks.full_pipeline.streams import ENDLESS_TOKENS, SETTLING_TOKENS
from benchmarks.harness import Bar, Report, note
from tbcluster.core import Output, Request, TokenId
from tbcluster.demo import MODEL_PATH
from tbcluster.engine.detokenizer import Detokenizer
from tbcluster.engine.engine import Engine
from tbcluster.engine.pipeline import Pipeline
from tbcluster.errors import TbclusterError
from tbcluster.model.source import find_model
from tbcluster.model.tokenizer import open_tokenizer
from tests.doubles.stage_double import StageDouble

NUM_STAGES = 2
VOCAB_SIZE = 512
NUM_PROMPT_TOKENS = 16
BAR = Bar("<=", 1, "ms")
GROWTH_BAR = Bar("<=", 1, "x")


def measure_coordinator(report: Report, settings: CoordinatorSettings) -> None:
    """Add the rows on the coordinator. Text is made by the bundled model's tokenizer."""
    tokenizer = open_tokenizer(find_model(str(MODEL_PATH)))
    step_ms: dict[int, float] = {}
    for count in settings.sequence_counts:
        note(f"{count} sequences")
        times = [
            _step_ms(count, settings.num_steps, lambda: tokenizer.detokenizer)
            for _ in range(settings.num_runs)
        ]
        step_ms[count] = statistics.median(times)
    few, many = min(step_ms), max(step_ms)
    for count, ms in step_ms.items():
        bar = BAR if count == many else None
        report.add(f"coordinator's own time per step, {count} sequences", ms, "ms", bar)
    growth = step_ms[many] / step_ms[few] / (many / few)
    report.add(f"its growth from {few} to {many} sequences / linear", growth, "x", GROWTH_BAR)


def _step_ms(
    num_sequences: int, num_steps: int, new_detokenizer: Callable[[], Detokenizer]
) -> float:
    """Milliseconds of the engine's turns per step, while all sequences decode."""
    stages = StageDouble(_next_token)
    pipeline = Pipeline(stages.inbound, stages.results)
    engine = new_engine(pipeline, NUM_STAGES, VOCAB_SIZE, new_detokenizer)
    listeners = [_Listener() for _ in range(num_sequences)]
    for number, listener in enumerate(listeners):
        engine.submit(_request(number), listener)
    while min(listener.num_tokens for listener in listeners) < SETTLING_TOKENS:
        engine.step(0)
        stages.work()
    return _timed_turns(engine, stages, num_steps)


def _timed_turns(engine: Engine, stages: StageDouble, num_steps: int) -> float:
    engine.reset_statistics()
    engine.step(0)
    stages.work()
    first = engine.statistics.num_steps
    seconds = 0.0
    for _ in range(num_steps):
        started = time.perf_counter()
        engine.step(0)
        seconds += time.perf_counter() - started
        stages.work()
    return seconds * 1e3 / (engine.statistics.num_steps - first)


class _Listener:
    """Counts."""

    def __init__(self) -> None:
        self.num_tokens = 0

    def __call__(self, item: Output | TbclusterError) -> None:
        assert isinstance(item, Output), item
        self.num_tokens += 1


def _request(number: int) -> Request:
    prompt = tuple((number + 7 * place) % VOCAB_SIZE for place in range(NUM_PROMPT_TOKENS))
    return Request(str(number), prompt, max_tokens=ENDLESS_TOKENS, cache_prompt=False)


def _next_token(context: Sequence[TokenId]) -> TokenId:
    return (context[-1] + len(context)) % VOCAB_SIZE
