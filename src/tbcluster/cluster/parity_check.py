"""Running the parity check: the reference in a worker of its own, the probe through the engine."""

import queue
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tbcluster.cluster.parity import TOLERANCE, compare
from tbcluster.cluster.served_model import ServedModel
from tbcluster.cluster.stages import error_of_kind
from tbcluster.cluster.supervisor import Worker, describe_exit
from tbcluster.core import Output, Request, SampledToken, SamplingParams, TokenId
from tbcluster.engine.engine import Engine
from tbcluster.errors import StageError, StageLostError, TbclusterError
from tbcluster.wire.control import Failed, Reference, ReferenceSpec, Report

PROBE_TEXT = "The capital of France is Paris, and 2 + 2 = 4."
MAX_PROMPT_TOKENS = 16
NUM_PROBE_TOKENS = 4


def probe_prompt(tokenizer: Any, vocab_size: int) -> tuple[TokenId, ...]:
    """A short prompt in the model's own tokens."""
    tokens = tokenizer.encode(PROBE_TEXT)[:MAX_PROMPT_TOKENS]
    return tuple(token for token in tokens if token < vocab_size) or (0,)


class ReferenceRun:
    """The unsharded model's continuation of a prompt, computed beside the loading of the stages."""

    def __init__(
        self, model_path: Path, prompt: tuple[TokenId, ...], kv_bits: int | None = None
    ) -> None:
        self._answer: Future[Reference] = Future()
        self._worker = Worker(
            "tbcluster.stage.reference",
            ReferenceSpec(str(model_path), prompt, NUM_PROBE_TOKENS, kv_bits),
            on_report=self._on_report,
            on_exit=self._on_exit,
        )

    def result(self) -> Reference:
        """Wait for the answer.

        Raises:
            TbclusterError: It could not be computed.
        """
        return self._answer.result()

    def close(self) -> None:
        """End the process if it is still running."""
        self._worker.stop()

    def _on_report(self, report: Report) -> None:
        if isinstance(report, Reference):
            self._answer.set_result(report)
        elif isinstance(report, Failed):
            self._answer.set_exception(error_of_kind(report.kind, report.message))

    def _on_exit(self, status: int) -> None:
        if not self._answer.done():
            error = StageError(f"the parity check's reference {describe_exit(status)}")
            self._answer.set_exception(error)


def run_probe(
    engine: Engine, prompt: tuple[TokenId, ...], has_lost_one: Callable[[], bool]
) -> list[SampledToken]:
    """Continue the prompt greedily through the pipeline, past requests that are held back.

    Args:
        has_lost_one: Whether a stage is gone: one lost before the probe was there to be ended
            would let it wait for ever.

    Raises:
        TbclusterError: The pipeline could not do it.
    """
    outputs: queue.SimpleQueue[Output | TbclusterError] = queue.SimpleQueue()
    sampling = SamplingParams(num_logprobs=0)
    # A known prefix could hide that a stage computes something else.
    request = Request("parity-probe", prompt, NUM_PROBE_TOKENS, sampling, cache_prompt=False)
    engine.submit(request, outputs.put, while_held=True)
    if has_lost_one():
        engine.cancel(request.request_id)
        raise StageLostError("a stage was lost before the parity check: try again")
    sampled = []
    while True:
        output = outputs.get()
        if isinstance(output, TbclusterError):
            raise output
        sampled.append(output.sampled)
        if output.finish_reason is not None:
            return sampled


class ParityCheck:
    """Compares the pipeline with the unsharded model, at load and after every restart.

    Args:
        has_lost_one: See `run_probe`.
    """

    def __init__(self, model: ServedModel, has_lost_one: Callable[[], bool]) -> None:
        self._has_lost_one = has_lost_one
        self._prompt = probe_prompt(model.tokenizer, model.facts.vocab_size)
        self._tolerance = TOLERANCE["half" if model.device.compute_dtype is None else "float32"]
        self._reference = ReferenceRun(model.folder.path, self._prompt, model.kv.bits)

    def run(self, engine: Engine) -> None:
        """Check once.

        Raises:
            ParityError: The pipeline computes something else.
            StageLostError: A worker died meanwhile.
        """
        reference = self._reference.result()
        sampled = run_probe(engine, self._prompt, self._has_lost_one)
        compare(reference, sampled, self._tolerance)

    def close(self) -> None:
        """End the reference's process if it is still running."""
        self._reference.close()
