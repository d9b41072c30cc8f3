"""A model, cut into stages on this machine or on a rack, that answers requests.

`Cluster` puts the parts together: it prepares the model (opened, planned, fetched), starts its
replicas and checks what they compute. From then on each replica looks after itself.
"""

import asyncio
import atexit
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tbcluster.cluster.assembly import NewPlaces, places_on
from tbcluster.cluster.embedding_requests import embedding_request
from tbcluster.cluster.kv_options import KvOptions
from tbcluster.cluster.layout import Layout, PlacedRange, layout_of
from tbcluster.cluster.opening import model_name
from tbcluster.cluster.order import Order
from tbcluster.cluster.parity_check import ParityCheck, parity_check
from tbcluster.cluster.preparation import OnFetch, OnNote, OnPlan, Preparation
from tbcluster.cluster.recovery.record import RecoveryRecord
from tbcluster.cluster.recovery.tended import Replanner
from tbcluster.cluster.replicas import ReplicaSet
from tbcluster.cluster.requests import text_request, token_ids
from tbcluster.cluster.saved_preparation import SavedPreparation
from tbcluster.cluster.stage_status import StageStatus
from tbcluster.cluster.stages import OnProgress
from tbcluster.cluster.status import (
    ClusterState,
    ClusterStatus,
    RecoveryStats,
    planned_stages,
    serving,
)
from tbcluster.core import LogitRules, Pooling, Request, SamplingParams, TokenId
from tbcluster.engine.sequence import Listener
from tbcluster.engine.statistics import EngineStatistics
from tbcluster.errors import ClusterClosedError, PlanError
from tbcluster.model.grammar import Grammars
from tbcluster.model.source import ModelFolder
from tbcluster.planner.plan import Plan, Wishes
from tbcluster.tracing.records import ReplicaTrace

if TYPE_CHECKING:
    from tbcluster.cluster.rack.rack import Rack

CLOSED_EARLY = "the cluster was closed while it was starting"


class Cluster:
    """One model cut into stages, as a context manager.

    Args:
        model: A folder, a Hugging Face id, or None for the bundled model.
        name: What clients call it; None for the id, or the folder's own name.
        stages: How many in each replica, of which there then is one unless more are wished for;
            None for two, or on a rack for the best number of both.
        kv: How the KV caches are kept.
        rack: The nodes that run the stages, started by the caller and still the caller's to end;
            None for this machine alone.
        new_places: Makes other places for the stages than the rack's nodes, or this machine.
        placed: Which node runs which layers of a single replica; empty for the best plan.
        layout: The same for several replicas; on one machine its name is `opening.THIS_MACHINE`.
        wishes: What is promised: context, streams, replicas.
        taken_bytes: Memory that other models hold, by node.
        taken_now: The same whenever it is asked; None for always `taken_bytes`.
        saved: How a coordinator before this one had prepared the model.
        memory_bytes: The most that models may take on this machine; None for what MLX says.
        measures_speed: Whether this machine's speed is measured, which takes some seconds at the
            first model of a kind, instead of assumed. Only what the plan predicts depends on it;
            on a rack speeds are always measured.
        describes: Whether to tell the rack what is served.
        shortens_context: Whether a model made for less than the wished context gets what it was
            made for, with a note, and is not refused.
        on_plan: Called with the plan before anything is fetched or loaded.
        on_fetch: Called while weights are fetched, with the state of each node.
        on_progress: Called while stages load, with the state of each.
        on_note: Called with each line a user should see.
        on_replanned: Called when a recovery has given stages other places.

    Attributes:
        preparation: How it is placed, and would be on other nodes.

    Raises (from `start` or on entering):
        ModelError: The model cannot be found, read, run, or fails the parity check.
        FetchError: Its weights cannot be fetched.
        PlanError: It cannot be cut or placed as asked, or there is too little memory
            (DoesNotFitError).
        PrefixFolderError: The folder for prefixes cannot be used, or is in use.
        StageError: A stage could not be started.
        RackError: A node that is placed by hand is not one of the rack's.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        name: str | None = None,
        stages: int | None = None,
        kv: KvOptions | None = None,
        rack: "Rack | None" = None,
        new_places: NewPlaces | None = None,
        placed: Sequence[PlacedRange] = (),
        layout: Layout = (),
        wishes: Wishes | None = None,
        taken_bytes: Mapping[str, int] | None = None,
        taken_now: Callable[[], Mapping[str, int]] | None = None,
        saved: SavedPreparation | None = None,
        memory_bytes: int | None = None,
        measures_speed: bool = False,
        describes: bool = True,
        shortens_context: bool = False,
        on_plan: OnPlan = lambda _: None,
        on_fetch: OnFetch = lambda _: None,
        on_progress: OnProgress = lambda _: None,
        on_note: OnNote = lambda _: None,
        on_replanned: Callable[[], None] = lambda: None,
    ) -> None:
        if stages is not None and stages < 1:
            raise PlanError(f"{stages} stages: ask for 1 or more")
        promised = wishes or Wishes()
        order = Order(
            source=model,
            name=name,
            kv=kv or KvOptions(),
            wishes=replace(promised, stages=stages) if stages is not None else promised,
            by_hand=layout or layout_of(placed),
            taken_bytes=taken_bytes or {},
            taken_now=taken_now,
            saved=saved,
            memory_bytes=memory_bytes,
            measures_speed=measures_speed,
            shortens_context=shortens_context,
        )
        self.model_name = name or model_name(model)
        self.created_at = time.time()
        self._rack = rack
        self._new_places = new_places or places_on(rack)
        self._describes = describes
        self._on_progress = on_progress
        self._on_note = on_note
        self._on_replanned = on_replanned
        self._check: ParityCheck | None = None
        self.preparation = Preparation(
            order, rack, self._is_closed, on_plan=on_plan, on_fetch=on_fetch, on_note=on_note
        )
        self._replicas: ReplicaSet | None = None
        # READY says that it was opened: from then on the replicas know better.
        self._state = ClusterState.STARTING
        self._lock = threading.Lock()

    # Life

    def start(self) -> Self:
        """Load the model and check it; returns when it can answer."""
        if self._replicas is not None or self._state is ClusterState.CLOSED:
            raise ClusterClosedError("a cluster can be started once: make another one")
        atexit.register(self.close)
        try:
            if self._rack is not None and self._describes:
                self._rack.describe(lambda: serving(self.status()))
            replicas = self._assemble()
            replicas.load()
            replicas.check()
            replicas.open()
            if not self._become(ClusterState.READY):
                raise ClusterClosedError(CLOSED_EARLY)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End all processes, remove the sockets; open requests end with ClusterClosedError.
        Thread-safe; also ends a `start` that another thread is in."""
        with self._lock:
            self._state = ClusterState.CLOSED
            replicas = self._replicas
        atexit.unregister(self.close)
        if replicas is not None:
            replicas.close()

    def __enter__(self) -> Self:
        is_started = self._replicas is not None and self._state is not ClusterState.CLOSED
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
        sampling = sampling or SamplingParams()
        return replace(
            text_request(token_ids(prompt), max_tokens, sampling, self._running.limits),
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
        kind = self._running.model.pooling if pooling is None else pooling
        limits = self._running.limits
        return embedding_request(token_ids(prompt), kind, limits, cache_prompt=cache_prompt)

    def submit(self, request: Request, listener: Listener) -> None:
        """Run a request; `listener` gets each Output and at most one error, in another thread.

        Raises:
            RequestError: The request cannot be served as asked.
            ClusterClosedError: The cluster is not running.
            TbclusterError: The cluster has failed for good, for this reason.
        """
        self._running.submit(request, listener)

    def cancel(self, request: Request) -> None:
        """End a request; its listener hears no more of it."""
        self._running.cancel(request)

    def trace(self, request_id: str, *, with_steps: bool = True) -> tuple[ReplicaTrace, ...]:
        """What the engines still know of a request and the steps that it was in."""
        return self._running.trace(request_id, with_steps=with_steps)

    def end_requests(self, reason: str) -> None:
        """End every request, open or yet to come, with ClusterClosedError; `close` is still due."""
        self._running.end_requests(reason)

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
        return self._running.limits.context_length

    @property
    def longest_sequence(self) -> int | None:
        """Longest prompt plus answer in tokens that context and KV memory allow."""
        return self._running.limits.longest

    def statistics(self) -> EngineStatistics:
        """What all engines counted since `reset_statistics`; the stages are those of `status`."""
        return self._running.statistics()

    def examine(self) -> None:
        """Look now, instead of by schedule, whether the stages still compute what they did when
        they were loaded; one that does not is loaded again. Returns at once."""
        self._running.examine()

    def reset_statistics(self) -> None:
        """Let the engines count from zero again."""
        self._running.reset_statistics()

    @property
    def peak_memory_bytes(self) -> int:
        """The most memory any one stage held while it loaded."""
        return max(status.memory_bytes for status in self._running.statuses)

    @property
    def plan(self) -> Plan | None:
        """Which node runs which layers; None before that is decided."""
        return self.preparation.plan

    def to_save(self) -> SavedPreparation | None:
        """What another coordinator needs to serve the same at once; None on one machine."""
        return self.preparation.to_save(self._check.reference() if self._check else None)

    def status(self) -> ClusterStatus:
        """What the cluster is doing now."""
        replicas, state = self._replicas, self._state
        if replicas is not None and state is ClusterState.READY:
            state = replicas.state
        failure = replicas.failure if replicas is not None else None
        doing = replicas.doing if replicas is not None else self.preparation.doing
        return ClusterStatus(
            state=state,
            model=self.model_name,
            stages=self._stages(replicas),
            num_requests=replicas.num_open if replicas is not None else 0,
            error=str(failure) if failure is not None else None,
            doing=doing if state is not ClusterState.CLOSED else None,
            recoveries=replicas.recoveries if replicas is not None else RecoveryStats(),
        )

    @property
    def recovery_records(self) -> tuple[RecoveryRecord, ...]:
        """The last recoveries, oldest first, and how long each of their parts took."""
        return self._replicas.recovery_records if self._replicas is not None else ()

    def _stages(self, replicas: ReplicaSet | None) -> tuple[StageStatus, ...]:
        if replicas is not None:
            return replicas.snapshot()
        plan, fetches = self.preparation.plan, self.preparation.fetches
        return planned_stages(plan, fetches, is_rack=self._rack is not None) if plan else ()

    @property
    def _running(self) -> ReplicaSet:
        if self._replicas is None:
            raise ClusterClosedError("the cluster is not running: use `with` or call `start` first")
        return self._replicas

    # Starting

    def _assemble(self) -> ReplicaSet:
        """Everything but the stage workers, which are started after it."""
        prepared = self.preparation.run()
        if self._is_closed():
            raise ClusterClosedError(CLOSED_EARLY)
        check = self._check = parity_check(prepared, self._on_note)
        replicas = ReplicaSet(
            prepared.replicas,
            self._new_places,
            check,
            self._on_progress,
            self._new_replanner,
            self._on_replanned,
        )
        with self._lock:
            if self._state is not ClusterState.CLOSED:
                self._replicas = replicas
                return replicas
        replicas.close()
        raise ClusterClosedError(CLOSED_EARLY)

    def _new_replanner(self, number: int) -> "Replanner | None":
        if self._rack is None:
            return None
        from tbcluster.cluster.recovery.placement import RackReplanner

        return RackReplanner(self._rack, self.preparation, number)

    def _is_closed(self) -> bool:
        return self._state is ClusterState.CLOSED

    def _become(self, state: ClusterState) -> bool:
        """Change the state, unless the cluster was closed meanwhile; closed is for good."""
        with self._lock:
            if self._state is ClusterState.CLOSED:
                return False
            self._state = state
            return True
