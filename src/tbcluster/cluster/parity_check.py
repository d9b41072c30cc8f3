"""Running the parity check: a probe through the engine, compared with the unsharded model, which
runs in a worker of its own, or where no machine can hold that, with itself.
"""

import queue
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from tbcluster.cluster.parity import RECOMPUTED, TOLERANCE, compare, recomputed
from tbcluster.cluster.prepared import Prepared
from tbcluster.cluster.stages import error_of_kind
from tbcluster.cluster.supervisor import Worker
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


class ParityCheck(Protocol):
    """Compares a pipeline with what it should compute, at load and after every restart."""

    @property
    def doing(self) -> str:
        """What it does, in words."""
        ...

    def run(self, engine: Engine, has_lost_one: Callable[[], bool]) -> None:
        """Check once.

        Args:
            has_lost_one: See `run_probe`.

        Raises:
            ParityError: The pipeline computes something else.
            StageLostError: A worker died meanwhile.
        """
        ...

    def reference(self) -> Reference | None:
        """What the unsharded model says, once it was compared with; None where it never was."""
        ...

    def close(self) -> None:
        """End what it has started."""
        ...


class ReferenceCheck:
    """Against the unsharded model. One answer of it does for all replicas, however they are placed,
    and for coordinators that come after this one.

    Args:
        prompt: See `probe_prompt`.
        source: What the model says to it: known, or being computed.
    """

    doing = "checking the output against the unsharded model's"

    def __init__(
        self, prompt: tuple[TokenId, ...], tolerance: float, source: "Reference | ReferenceRun"
    ) -> None:
        self._prompt = prompt
        self._tolerance = tolerance
        self._source = source
        self._compared: Reference | None = None

    def run(self, engine: Engine, has_lost_one: Callable[[], bool]) -> None:
        """See `ParityCheck`."""
        source = self._source
        reference = source if isinstance(source, Reference) else source.result()
        sampled = run_probe(engine, self._prompt, has_lost_one)
        compare(reference, sampled, self._tolerance)
        self._compared = reference

    def reference(self) -> Reference | None:
        """See `ParityCheck`."""
        return self._compared

    def close(self) -> None:
        """End the reference's process if it is still running."""
        if isinstance(self._source, ReferenceRun):
            self._source.close()


class ConsistencyCheck:
    """Against itself, where no machine holds the unsharded model: what decode steps give must be
    what comes of computing the same tokens as a prompt, on caches that begin empty. It finds
    stages whose caches, positions or order are wrong; of weights it knows nothing, which were
    verified as they were fetched.
    """

    doing = "checking that the stages agree with one another"

    def __init__(self, prompt: tuple[TokenId, ...], tolerance: float) -> None:
        self._prompt = prompt
        self._tolerance = tolerance

    def run(self, engine: Engine, has_lost_one: Callable[[], bool]) -> None:
        """See `ParityCheck`."""
        stepwise = run_probe(engine, self._prompt, has_lost_one)
        tokens = tuple(token.token for token in stepwise)
        anew = [
            run_probe(engine, self._prompt + tokens[:known], has_lost_one, max_tokens=1)[0]
            for known in range(len(tokens))
        ]
        compare(recomputed(anew), stepwise, self._tolerance, RECOMPUTED)

    def reference(self) -> Reference | None:
        """See `ParityCheck`."""
        return None

    def close(self) -> None:
        """Nothing was started."""


class NoCheck:
    """For architectures whose output depends on how a prompt is cut, where no machine holds the
    unsharded model: nothing there is to compare with."""

    doing = "connecting the stages"

    def run(self, engine: Engine, has_lost_one: Callable[[], bool]) -> None:
        """See `ParityCheck`."""

    def reference(self) -> Reference | None:
        """See `ParityCheck`."""
        return None

    def close(self) -> None:
        """Nothing was started."""


def parity_check(prepared: Prepared, on_note: Callable[[str], None]) -> ParityCheck:
    """The strongest check that can be made of a model that is about to be loaded: against the
    unsharded model where that can be run, or has been by a coordinator before this one."""
    model, reason = prepared.replicas[0], prepared.no_reference_because
    folder = prepared.whole_folder
    prompt = probe_prompt(model.tokenizer, model.facts.vocab_size)
    tolerance = TOLERANCE["half" if model.device.compute_dtype is None else "float32"]
    if prepared.reference is not None:
        return ReferenceCheck(prompt, tolerance, prepared.reference)
    if reason is None and folder is not None:
        # It begins to run now, beside the loading of the stages.
        return ReferenceCheck(prompt, tolerance, ReferenceRun(folder, prompt, model.kv.bits))
    note = f"{model.name} is not compared with the unsharded model: {reason}"
    if model.caches.fixed_chunks:
        on_note(f"{note}; its stages cannot be checked otherwise")
        return NoCheck()
    on_note(f"{note}; its stages are checked against one another")
    return ConsistencyCheck(prompt, tolerance)


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

    def _on_exit(self, what: str) -> None:
        if not self._answer.done():
            error = StageError(f"the parity check's reference {what}")
            self._answer.set_exception(error)


def run_probe(
    engine: Engine,
    prompt: tuple[TokenId, ...],
    has_lost_one: Callable[[], bool],
    max_tokens: int = NUM_PROBE_TOKENS,
) -> list[SampledToken]:
    """Continue the prompt greedily through the pipeline, past requests that are held back.

    Args:
        has_lost_one: Whether a stage is gone: one lost before the probe was there to be ended
            would let it wait for ever.

    Raises:
        TbclusterError: The pipeline could not do it.
    """
    outputs: queue.SimpleQueue[Output | TbclusterError] = queue.SimpleQueue()
    # The runner-up says how near a tie is.
    sampling = SamplingParams(num_logprobs=2)
    # A known prefix could hide that a stage computes something else.
    request = Request("parity-probe", prompt, max_tokens, sampling, cache_prompt=False)
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
