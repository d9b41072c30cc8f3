"""A model, cut into stages on this machine or on a rack, that answers requests.

`Cluster` puts the parts together: it opens the model, starts the stages and the engine, checks
parity, and leaves a watcher to start a stage again when its worker dies.
"""

import asyncio
import atexit
import logging
import operator
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tbcluster.cluster.embedding_requests import embedding_request
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import PlacedRange, Spread
from tbcluster.cluster.parts import FIRST_EPOCH, Parts, assemble
from tbcluster.cluster.served_model import model_name, open_served_model
from tbcluster.cluster.stages import Loss, OnProgress
from tbcluster.cluster.status import ClusterState, ClusterStatus, loading, serving
from tbcluster.cluster.watcher import StageWatcher, tell_requests
from tbcluster.core import LogitRules, Pooling, Request, SamplingParams, TokenId
from tbcluster.engine.limits import clipped_max_tokens
from tbcluster.engine.sequence import Listener
from tbcluster.engine.statistics import EngineStatistics
from tbcluster.errors import ClusterClosedError, PlanError, RequestError, TbclusterError
from tbcluster.model.grammar import Grammars
from tbcluster.model.source import ModelFolder

if TYPE_CHECKING:
    from tbcluster.cluster.rack.rack import Rack

logger = logging.getLogger(__name__)

OnNote = Callable[[str], None]


class Cluster:
    """One model cut into stages, as a context manager.

    Args:
        model: A folder, a Hugging Face id, or None for the bundled model.
        stages: How many; None for two, or on a rack one for each node, or as many as the model's
            layers allow.
        kv: How the KV caches are kept.
        rack: The nodes that run the stages, started by the caller and still the caller's to end;
            None for this machine alone.
        placed: Which node runs which layers; empty for an even split over all nodes.
        on_progress: Called while stages load, with the state of each.
        on_note: Called with each line a user should see.

    Raises (from `start` or on entering):
        ModelError: The model cannot be found, read, run, or fails the parity check.
        PlanError: It cannot be cut into so many stages, or has too little KV memory.
        PrefixFolderError: The folder for prefixes cannot be used, or is in use.
        StageError: A stage could not be started.
        RackError: A node that is placed by hand is not one of the rack's.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        stages: int | None = None,
        kv: KvOptions | None = None,
        rack: "Rack | None" = None,
        placed: Sequence[PlacedRange] = (),
        on_progress: OnProgress = lambda _: None,
        on_note: OnNote = lambda _: None,
    ) -> None:
        if stages is not None and stages < 1:
            raise PlanError(f"{stages} stages: ask for 1 or more")
        self.model_name = model_name(model)
        self.created_at = time.time()
        self._source = model
        self._num_stages = stages
        self._kv = kv or KvOptions()
        self._rack = rack
        self._placed = tuple(placed)
        self._on_progress = on_progress
        self._on_note = on_note
        self._state = ClusterState.STARTING
        # What it is doing while it starts; None while stages load, who know it better.
        self._doing: str | None = "opening the model" if rack is None else "bringing up the rack"
        self._failure: TbclusterError | None = None
        self._parts: Parts | None = None
        self._lock = threading.Lock()

    # Life

    def start(self) -> Self:
        """Load the model and check it; returns when it can answer."""
        if self._parts is not None or self._state is ClusterState.CLOSED:
            raise ClusterClosedError("a cluster can be started once: make another one")
        atexit.register(self.close)
        try:
            spread = self._await_nodes()
            self._doing = "opening the model"
            model = open_served_model(self._source, self._num_stages, self._kv, spread)
            for note in model.notes:
                self._on_note(note)
            self._parts = assemble(
                model, self._rack, self._on_progress, self._on_loss, self._note_failure
            )
            if self._become(ClusterState.STARTING):
                self._bring_up(self._parts)
            if not self._become(ClusterState.READY):
                raise ClusterClosedError("the cluster was closed while it was starting")
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End all processes, remove the sockets; open requests end with ClusterClosedError.
        Thread-safe; also ends a `start` that another thread is in."""
        with self._lock:
            self._state = ClusterState.CLOSED
            cleanup = self._parts.cleanup.pop_all() if self._parts is not None else ExitStack()
        atexit.unregister(self.close)
        cleanup.close()

    def __enter__(self) -> Self:
        is_started = self._parts is not None and self._state is not ClusterState.CLOSED
        return self if is_started else self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    # Requests

    def make_request(
        self,
        prompt: Sequence[TokenId],
        *,
        max_tokens: int,
        sampling: SamplingParams | None = None,
        stop: Sequence[str] = (),
        cache_prompt: bool = True,
        rules: LogitRules | None = None,
    ) -> Request:
        """A request that ends at the model's own end-of-text tokens; `max_tokens` is lowered to
        what the context and the KV memory leave.

        Raises:
            RequestError: The prompt holds something else than token ids.
        """
        tokens = _token_ids(prompt)
        return Request(
            request_id=secrets.token_hex(12),
            prompt=tokens,
            max_tokens=clipped_max_tokens(tokens, max_tokens, self._running.model.limits),
            sampling=sampling or SamplingParams(),
            stop=tuple(stop),
            stop_tokens=frozenset(self.tokenizer.eos_token_ids),
            cache_prompt=cache_prompt,
            rules=rules,
        )

    def make_embedding_request(
        self,
        prompt: Sequence[TokenId],
        pooling: Pooling | str | None = None,
        *,
        cache_prompt: bool = True,
    ) -> Request:
        """A request for the embedding of a prompt: it has one output, whose `embedding` is set.

        Args:
            pooling: None for the model's own way (`default_pooling`).
            cache_prompt: Whether it may start from a known prefix (a mean never does).

        Raises:
            RequestError: The prompt or the pooling cannot be served, or the model gives none.
        """
        model = self._running.model
        kind = model.pooling if pooling is None else pooling
        return embedding_request(_token_ids(prompt), kind, model.limits, cache_prompt=cache_prompt)

    def submit(self, request: Request, listener: Listener) -> None:
        """Run a request; `listener` gets each Output and at most one error, in another thread.

        Raises:
            RequestError: The request cannot be served as asked.
            ClusterClosedError: The cluster is not running.
            TbclusterError: The cluster has failed for good, for this reason.
        """
        self._running.engine.submit(request, listener)

    def cancel(self, request: Request) -> None:
        """End a request; its listener hears no more of it."""
        self._running.engine.cancel(request.request_id)

    def end_requests(self, reason: str) -> None:
        """End every request, open or yet to come, with ClusterClosedError; `close` is still due."""
        self._running.engine.close(ClusterClosedError(reason))

    # Facts

    @property
    def tokenizer(self) -> Any:
        """mlx-lm's TokenizerWrapper."""
        return self._running.model.tokenizer

    @property
    def grammars(self) -> Grammars:
        """Makes grammars that answers of this model can be held to."""
        return self._running.model.grammars

    @property
    def folder(self) -> ModelFolder:
        """The model's folder and configuration."""
        return self._running.model.folder

    @property
    def default_pooling(self) -> Pooling:
        """How embeddings are made unless a request says otherwise."""
        return self._running.model.pooling

    @property
    def context_length(self) -> int | None:
        """Longest prompt plus answer in tokens, where the model names one."""
        return self._running.model.limits.context_length

    @property
    def longest_sequence(self) -> int | None:
        """Longest prompt plus answer in tokens that context and KV memory allow."""
        return self._running.model.limits.longest

    def statistics(self) -> EngineStatistics:
        """What the engine counted since `reset_statistics`."""
        return self._running.engine.statistics

    def reset_statistics(self) -> None:
        """Let the engine count from zero again."""
        self._running.engine.reset_statistics()

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory any one stage held while it loaded."""
        return max(status.memory_bytes for status in self._running.stages.statuses)

    def status(self) -> ClusterStatus:
        """What the cluster is doing now."""
        parts = self._parts
        return ClusterStatus(
            state=self._state,
            model=self.model_name,
            stages=parts.stages.snapshot() if parts else (),
            num_requests=parts.engine.num_open if parts else 0,
            error=str(self._failure) if self._failure else None,
            doing=self._words(parts) if self._state is ClusterState.STARTING else None,
        )

    def _words(self, parts: Parts | None) -> str:
        """What it is doing while it starts."""
        return self._doing or loading(parts.stages.statuses if parts else ())

    @property
    def _running(self) -> Parts:
        if self._parts is None:
            raise ClusterClosedError("the cluster is not running: use `with` or call `start` first")
        return self._parts

    # Starting

    def _await_nodes(self) -> Spread | None:
        if self._rack is None:
            return None
        self._doing = "waiting for the nodes"
        self._rack.describe(lambda: serving(self.status()))
        return self._rack.await_spread(
            self._placed, lambda: self._state is ClusterState.CLOSED, on_wait=self._note_waiting
        )

    def _note_waiting(self, what: str) -> None:
        self._doing = what

    def _bring_up(self, parts: Parts) -> None:
        self._doing = None
        for stage in range(len(parts.model.ranges)):
            parts.stages.start(stage, FIRST_EPOCH)
        # While the stages load nobody is held up by it.
        parts.model.grammars.open()
        parts.start_thread("engine", parts.engine.run)
        parts.stages.await_ready()
        self._doing = "checking the output against the unsharded model's"
        parts.parity.run(parts.engine)
        parts.engine.open()
        watcher = StageWatcher(
            parts.stages,
            parts.engine,
            parts.parity,
            FIRST_EPOCH,
            on_recovering=self._note_recovering,
            on_failure=self._note_failure,
        )
        parts.start_thread("watcher", watcher.run)

    # What happens meanwhile

    def _on_loss(self, loss: Loss) -> None:
        if self._parts is not None and self._state is not ClusterState.CLOSED:
            tell_requests(self._parts.engine, loss)

    def _note_recovering(self, is_recovering: bool) -> None:
        self._become(ClusterState.RECOVERING if is_recovering else ClusterState.READY)

    def _note_failure(self, error: TbclusterError) -> None:
        if self._become(ClusterState.FAILED):
            logger.error("%s; no more requests can be answered: start tbcluster again", error)
            self._failure = error
            self._running.engine.close(error)

    def _become(self, state: ClusterState) -> bool:
        """Change the state, unless the cluster was closed meanwhile; closed is for good."""
        with self._lock:
            if self._state is ClusterState.CLOSED:
                return False
            self._state = state
            return True


def _token_ids(prompt: Sequence[TokenId]) -> tuple[TokenId, ...]:
    try:
        return tuple(operator.index(token) for token in prompt)
    except TypeError as error:
        raise RequestError(
            f"the prompt holds something else than ids: {error}", "prompt"
        ) from error
