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
    pooling: Pooling = Pooling.LAST
    tokens_per_s: float = 1.0
    replica: int = 0
    first_stage: int = 0


def served_models(
    opened: OpenedModel, plan: Plan, kv: KvOptions, folders: Mapping[str, str] | None = None
) -> tuple[ServedModel, ...]:
    """The replicas of a plan.

    Args:
        folders: Where each node loads from; None for all stages on this machine.

    Raises:
        ModelError: The tokenizer cannot be read, or the architecture allows no such KV caches.
        PlanError: A stage has too little KV memory.
    """
    tokenizer = open_tokenizer(opened.folder)
    grammars = Grammars(tokenizer, opened.facts.vocab_size)
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
    for number, (replica, caches) in enumerate(zip(plan.replicas, facts, strict=True)):
        budgets = tuple(islice(left, len(replica.stages)))
        first_stage = sum(len(before.ranges) for before in served)
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
