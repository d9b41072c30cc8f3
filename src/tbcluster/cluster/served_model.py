"""One copy of a model, placed and budgeted, before any of it is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tbcluster.cluster.kv_options import KvOptions, StageMemory, kv_budgets
from tbcluster.cluster.opening import OpenedModel
from tbcluster.core import CacheFacts, Pooling, StageRange
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.limits import Limits
from tbcluster.model.device import Device
from tbcluster.model.facts import ModelFacts
from tbcluster.model.grammar import Grammars
from tbcluster.model.source import ModelFolder
from tbcluster.model.tokenizer import open_tokenizer
from tbcluster.planner.plan import Plan, PlannedReplica

# A step of the largest chunk may take this many times what the plan predicts for half the promised
# context: contexts grow, machines get hot, others compute beside.
STEP_LIMIT_FACTOR = 10.0
# Speeds may be assumed ones: nothing is stuck before that.
MIN_STEP_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that was found, checked, traced and planned: one replica of it.

    Attributes:
        name: What clients call it.
        tokenizer: mlx-lm's TokenizerWrapper; like `grammars` the same for all replicas.
        grammars: Makes grammars for it.
        ranges: The layers of each stage.
        nodes: The node of each stage; None where all are on this machine.
        sources: What each stage loads from, as in `StageSpec.model`.
        kv_budgets: Bytes of KV memory of each stage.
        pooling: How embeddings are made unless a request says otherwise.
        shards: What each stage holds, as in `StageSpec`.
        step_limit_s: As in `StageSpec`; of all stages the longest.
        tokens_per_s: What the plan predicts of all its streams together.
        replica, first_stage: Its number, and how many stages those before it have.
    """

    name: str
    folder: ModelFolder
    facts: ModelFacts
    tokenizer: Any
    grammars: Grammars
    limits: Limits
    device: Device
    ranges: tuple[StageRange, ...]
    nodes: tuple[str, ...] | None
    sources: tuple[str, ...]
    caches: CacheFacts
    kv_budgets: tuple[int, ...]
    kv: KvOptions
    shards: tuple[str, ...] = ()
    step_limit_s: float = 0.0
    pooling: Pooling = Pooling.LAST
    tokens_per_s: float = 1.0
    replica: int = 0
    first_stage: int = 0


def served_models(
    opened: OpenedModel,
    plan: Plan,
    kv: KvOptions,
    folders: Mapping[str, str] | None = None,
    before: ServedModel | None = None,
) -> tuple[ServedModel, ...]:
    """The replicas of a plan.

    Args:
        folders: Where each node loads from; None for all stages on this machine.
        before: The replica that this plan is for, as it was placed; None for a plan of all.

    Raises:
        ModelError: The tokenizer cannot be read, or the architecture allows no such KV caches.
        PlanError: A stage has too little KV memory.
    """
    tokenizer = open_tokenizer(opened.folder) if before is None else before.tokenizer
    grammars = Grammars(tokenizer, opened.facts.vocab_size) if before is None else before.grammars
    first_replica, offset = (0, 0) if before is None else (before.replica, before.first_stage)
    # What is on disk belongs to one replica: each has its share of the room.
    share = replace(kv, prefix_disk_bytes=max(1, kv.prefix_disk_bytes // len(plan.replicas)))
    facts = [opened.inspected.cache_facts(_ranges(one), kv.bits) for one in plan.replicas]
    # At once for all of them: they may share machines.
    left = iter(
        kv_budgets(
            [costs for caches in facts for costs in caches.costs],
            kv,
            [machine for replica in plan.replicas for machine in _machines(replica)],
        )
    )
    served: list[ServedModel] = []
    for number, (replica, caches) in enumerate(
        zip(plan.replicas, facts, strict=True), first_replica
    ):
        budgets = tuple(islice(left, len(replica.stages)))
        first_stage = offset + sum(len(model.ranges) for model in served)
        served.append(
            ServedModel(
                name=opened.name,
                folder=opened.folder,
                facts=opened.facts,
                tokenizer=tokenizer,
                grammars=grammars,
                limits=_limits(opened, caches, budgets, first_stage),
                device=opened.device,
                ranges=_ranges(replica),
                nodes=tuple(stage.node for stage in replica.stages)
                if folders is not None
                else None,
                sources=_sources(opened, replica, folders),
                caches=caches,
                kv_budgets=budgets,
                kv=share,
                shards=_shards(opened, replica, kv),
                step_limit_s=_step_limit_s(replica),
                pooling=opened.pooling,
                tokens_per_s=replica.tokens_per_s,
                replica=number,
                first_stage=first_stage,
            )
        )
    return tuple(served)


def _ranges(replica: PlannedReplica) -> tuple[StageRange, ...]:
    return tuple(stage.layers for stage in replica.stages)


def _machines(replica: PlannedReplica) -> list[StageMemory]:
    return [
        StageMemory(
            name=stage.node,
            limit_bytes=stage.memory_bytes,
            weight_bytes=stage.weight_bytes,
            other_bytes=stage.activation_bytes + stage.reserve_bytes,
            promised_bytes=stage.kv_bytes,
        )
        for stage in replica.stages
    ]


def _shards(opened: OpenedModel, replica: PlannedReplica, kv: KvOptions) -> tuple[str, ...]:
    """Names for what the stages hold: equal ones can stand in for each other."""
    return tuple(
        f"{opened.identity}:{layers.start}-{layers.end}:kv{kv.bits or 'full'}"
        for layers in _ranges(replica)
    )


def _step_limit_s(replica: PlannedReplica) -> float:
    """How long a stage's step may take before the stage counts as stuck."""
    slowest_s = max(max(stage.prefill_s, stage.decode_s) for stage in replica.stages)
    return max(MIN_STEP_LIMIT_S, STEP_LIMIT_FACTOR * slowest_s)


def _sources(
    opened: OpenedModel, replica: PlannedReplica, folders: Mapping[str, str] | None
) -> tuple[str, ...]:
    if folders is None:
        return (str(opened.folder.path),) * len(replica.stages)
    return tuple(folders[stage.node] for stage in replica.stages)


def _limits(
    opened: OpenedModel, caches: CacheFacts, budgets: tuple[int, ...], first_stage: int
) -> Limits:
    memory = KvMemory(caches.costs, budgets)
    capacity = memory.capacity_tokens()
    stage = memory.tightest_stage(capacity)
    return Limits(
        opened.facts.vocab_size,
        opened.folder.context_length,
        kv_tokens=capacity,
        kv_note=f"stage {first_stage + stage} has {budgets[stage] / 2**20:,.1f} MiB; more: "
        "--kv-memory, smaller: --kv-bits",
        no_embeddings_because=opened.facts.no_embeddings_because,
    )
