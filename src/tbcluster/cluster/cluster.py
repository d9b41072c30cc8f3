"""A model, cut into stages on this machine, that answers requests.

`Cluster` puts the parts together: it finds and inspects the model, starts the stages and the
engine, checks parity, and starts a stage again when its worker dies.
"""

import atexit
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tbcluster.cluster.parity import TOLERANCE, compare
from tbcluster.cluster.probe import ReferenceRun, probe_prompt, run_probe
from tbcluster.cluster.restarts import RestartBudget
from tbcluster.cluster.stages import OnProgress, StageExited, StageSet, StageStatus
from tbcluster.core import Request, SamplingParams, TokenId
from tbcluster.demo import MODEL_PATH
from tbcluster.engine.engine import Engine
from tbcluster.engine.limits import Limits, clipped_max_tokens
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.scheduler import Scheduler
from tbcluster.engine.sequence import Listener
from tbcluster.errors import (
    ClusterClosedError,
    PlanError,
    StageError,
    StageLostError,
    TbclusterError,
)
from tbcluster.model.device import Device, current_device
from tbcluster.model.facts import ModelFacts, model_facts
from tbcluster.model.source import ModelFolder, find_model
from tbcluster.model.tokenizer import open_tokenizer
from tbcluster.planner.partition import even_split
from tbcluster.transport.zeromq import ZmqReceiver, ZmqSender

logger = logging.getLogger(__name__)

DEMO_MODEL_NAME = "tbcluster-demo"
DEFAULT_NUM_STAGES = 2
# mlx-lm's own step: equal chunks do equal arithmetic.
PREFILL_CHUNK_TOKENS = 2048
UNLIMITED = 1 << 30

OnNote = Callable[[str], None]


class ClusterState(StrEnum):
    """What the cluster can do now."""

    STARTING = "starting"
    READY = "ready"
    RECOVERING = "recovering"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A snapshot for people and programs."""

    state: ClusterState
    model: str
    num_layers: int
    stages: tuple[StageStatus, ...]
    num_requests: int
    error: str | None


class Cluster:
    """One model on local stages, as a context manager.

    Args:
        model: A folder, a Hugging Face id, or None for the bundled model.
        stages: How many; None for two, or as many as the model's layers allow.
        on_progress: Called while stages load, with the state of each.
        on_note: Called with each line a user should see.

    Raises (from `start` or on entering):
        ModelError: The model cannot be found, read, run, or fails the parity check.
        PlanError: It cannot be cut into so many stages.
        StageError: A stage could not be started.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        stages: int | None = None,
        on_progress: OnProgress = lambda _: None,
        on_note: OnNote = lambda _: None,
    ) -> None:
        if stages is not None and stages < 1:
            raise PlanError(f"{stages} stages: ask for 1 or more")
        self.model_name = model_name(model)
        self._source = str(model or MODEL_PATH)
        self._num_stages = stages
        self._on_progress = on_progress
        self._on_note = on_note
        self._state = ClusterState.STARTING
        self._failure: TbclusterError | None = None
        self._budget = RestartBudget()
        self._epoch = 1
        self._started_at = time.time()
        self._stages: StageSet | None = None
        self._reference: ReferenceRun | None = None
        self._receiver: ZmqReceiver | None = None
        self._sender: ZmqSender | None = None
        self._engine: Engine | None = None
        self._threads: list[threading.Thread] = []

    # Life

    def start(self) -> Self:
        """Load the model and check it; returns when it can answer."""
        atexit.register(self.close)
        try:
            self._load()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End all processes, remove the sockets; open requests end with ClusterClosedError."""
        if self._state is ClusterState.CLOSED:
            return
        self._state = ClusterState.CLOSED
        atexit.unregister(self.close)
        if self._engine is not None:
            self._engine.stop()
        if self._stages is not None:
            self._stages.interrupt()
        for thread in self._threads:
            thread.join()
        if self._reference is not None:
            self._reference.close()
        if self._stages is not None:
            self._stages.close()
        for channel in (self._sender, self._receiver):
            if channel is not None:
                channel.close()

    def __enter__(self) -> Self:
        return self if self._stages is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Requests

    def make_request(
        self,
        prompt: Sequence[TokenId],
        *,
        max_tokens: int,
        sampling: SamplingParams | None = None,
        stop: Sequence[str] = (),
    ) -> Request:
        """A request that ends at the model's own end-of-text tokens; `max_tokens` is lowered to
        what the context leaves."""
        tokens = tuple(prompt)
        return Request(
            request_id=secrets.token_hex(12),
            prompt=tokens,
            max_tokens=clipped_max_tokens(tokens, max_tokens, self._limits),
            sampling=sampling or SamplingParams(),
            stop=tuple(stop),
            stop_tokens=frozenset(self.tokenizer.eos_token_ids),
        )

    def submit(self, request: Request, listener: Listener) -> None:
        """Run a request; `listener` gets each Output and at most one error, in another thread.

        Raises:
            RequestError: The request cannot be served as asked.
            StageError: The cluster has failed for good.
        """
        if self._failure is not None:
            raise self._failure
        if self._engine is None or self._state is ClusterState.CLOSED:
            raise ClusterClosedError("the cluster is not running: use `with` or call `start` first")
        self._engine.submit(request, listener)

    def cancel(self, request: Request) -> None:
        """End a request; its listener hears no more of it."""
        if self._engine is not None:
            self._engine.cancel(request.request_id)

    # Facts

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's TokenizerWrapper."""
        return self._tokenizer

    @property
    def folder(self) -> ModelFolder:
        """The model's folder and configuration."""
        return self._folder

    @property
    def num_stages(self) -> int:
        """Stages that run the model."""
        return len(self._stages.statuses) if self._stages else 0

    @property
    def context_length(self) -> int | None:
        """Longest prompt plus answer in tokens, where the model names one."""
        return self._limits.context_length

    @property
    def started_at(self) -> float:
        """When this cluster was made, in seconds since 1970."""
        return self._started_at

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory any one stage held while it loaded."""
        stages = self._stages.statuses if self._stages else []
        return max((status.memory_bytes for status in stages), default=0)

    def status(self) -> ClusterStatus:
        """What the cluster is doing now."""
        return ClusterStatus(
            state=self._state,
            model=self.model_name,
            num_layers=self._facts.num_layers,
            stages=tuple(self._stages.statuses) if self._stages else (),
            num_requests=self._engine.num_open if self._engine else 0,
            error=str(self._failure) if self._failure else None,
        )

    # Starting

    def _load(self) -> None:
        device = current_device()
        self._folder = find_model(self._source)
        self._facts = model_facts(self._folder, device)
        self._limits = Limits(self._facts.vocab_size, self._folder.context_length)
        self._tokenizer = open_tokenizer(self._folder)
        self._tolerance = TOLERANCE["half" if device.compute_dtype is None else "float32"]
        self._start_stages(device)
        self._start_engine()
        self._stages_or_fail().await_ready()
        self._check_parity()
        self._open()
        self._start_thread("watch", self._watch)

    def _start_stages(self, device: Device) -> None:
        ranges = even_split(
            self._facts.num_layers, self._facts.legal_cuts, self._choose_num_stages(self._facts)
        )
        if device.note:
            self._on_note(device.note)
        path = self._folder.path
        self._stages = StageSet(path, ranges, self._on_progress, self._on_loss)
        self._receiver = ZmqReceiver(self._stages.results)
        self._sender = ZmqSender(self._stages.entry)
        for stage in range(len(ranges)):
            self._stages.start(stage, self._epoch)
        self._probe_prompt = probe_prompt(self._tokenizer, self._facts.vocab_size)
        self._reference = ReferenceRun(path, self._probe_prompt)

    def _choose_num_stages(self, facts: ModelFacts) -> int:
        reason = facts.uncuttable_because
        if reason is not None:
            wanted = self._num_stages or DEFAULT_NUM_STAGES
            if wanted > 1:
                self._on_note(f"{self.model_name} is served unsplit: {reason}")
            return 1
        if self._num_stages is None:
            return min(DEFAULT_NUM_STAGES, len(facts.legal_cuts) + 1)
        return self._num_stages

    def _start_engine(self) -> None:
        assert self._sender is not None  # noqa: S101 - `_start_stages` made both
        assert self._receiver is not None  # noqa: S101
        looped = self._facts.num_visits > 1
        self._engine = Engine(
            Pipeline(self._sender, self._receiver, self._epoch),
            Scheduler(
                max_in_flight=self.num_stages + 1,
                chunk_tokens=PREFILL_CHUNK_TOKENS,
                max_per_sequence=1 if looped else UNLIMITED,
            ),
            new_detokenizer=lambda: self._tokenizer.detokenizer,
            limits=self._limits,
        )
        self._start_thread("engine", self._engine.run)

    def _check_parity(self) -> None:
        assert self._reference is not None  # noqa: S101
        reference = self._reference.result()
        sampled = run_probe(
            self._engine_or_fail(), self._probe_prompt, self._stages_or_fail().has_lost_one
        )
        compare(reference, sampled, self._tolerance)

    def _open(self) -> None:
        self._engine_or_fail().open()
        self._state = ClusterState.READY

    def _start_thread(self, name: str, target: Any) -> None:
        thread = threading.Thread(target=target, name=f"tbcluster-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    # Recovery

    def _on_loss(self, exited: StageExited) -> None:
        """Called by the thread that saw a worker end: tell its requests before anything else."""
        engine = self._engine
        if engine is None or self._state is ClusterState.CLOSED:
            return
        engine.hold()
        engine.fail_running(
            StageLostError(
                f"stage {exited.stage} {exited.what}, so this answer cannot be finished; "
                "the stage is being started again: send the request again"
            )
        )

    def _watch(self) -> None:
        stages = self._stages_or_fail()
        while True:
            try:
                self._restart(stages.next_exit())
            except TbclusterError as error:
                if self._state is not ClusterState.CLOSED:
                    self._fail(error)
                return

    def _restart(self, exited: StageExited | None) -> None:
        """Start what died again, until all stages are ready and agree with the reference."""
        stages, engine = self._stages_or_fail(), self._engine_or_fail()
        self._state = ClusterState.RECOVERING
        while exited is not None:
            logger.warning("stage %d %s: starting it again", exited.stage, exited.what)
            if not self._budget.take(time.monotonic()):
                raise StageError(f"stage {exited.stage} {exited.what} again and again: given up")
            self._epoch += 1
            engine.hold()  # again: a loss may have come just before `_open`
            engine.begin_epoch(self._epoch)
            for stage in stages.dead_stages():
                stages.statuses[stage].num_restarts += 1
                stages.start(stage, self._epoch)
            exited = stages.next_exit(until_ready=True)
            if exited is None:
                exited = self._lost_during_parity_check()
        self._open()

    def _lost_during_parity_check(self) -> StageExited | None:
        try:
            self._check_parity()
        except StageLostError:
            return self._stages_or_fail().next_exit()
        return None

    def _fail(self, error: TbclusterError) -> None:
        logger.error("the cluster has failed: %s", error)
        self._failure = error
        self._state = ClusterState.FAILED
        self._engine_or_fail().fail_all(error)

    def _stages_or_fail(self) -> StageSet:
        if self._stages is None:
            raise ClusterClosedError("the cluster is not running")
        return self._stages

    def _engine_or_fail(self) -> Engine:
        if self._engine is None:
            raise ClusterClosedError("the cluster is not running")
        return self._engine


def model_name(model: str | Path | None) -> str:
    """The name clients call the model by: a Hugging Face id as it is, a folder's own name."""
    if model is None:
        return DEMO_MODEL_NAME
    path = Path(model).expanduser()
    return path.resolve().name if path.exists() else str(model)
