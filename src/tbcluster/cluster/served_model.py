"""What is known of a model before any of it is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tbcluster.cluster.embedding_requests import model_pooling
from tbcluster.cluster.kv_options import KvOptions, kv_budgets
from tbcluster.core import CacheFacts, Pooling, StageRange
from tbcluster.demo import MODEL_PATH
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.limits import Limits
from tbcluster.model.device import Device, current_device, memory_limit_bytes
from tbcluster.model.facts import InspectedModel, ModelFacts
from tbcluster.model.grammar import Grammars
from tbcluster.model.source import ModelFolder, find_model, local_path
from tbcluster.model.tokenizer import open_tokenizer
from tbcluster.planner.partition import even_split

DEMO_MODEL_NAME = "tbcluster-demo"
DEFAULT_NUM_STAGES = 2


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that was found, checked and traced.

    Attributes:
        name: What clients call it.
        tokenizer: mlx-lm's TokenizerWrapper.
        grammars: Makes grammars for it.
        ranges: The layers of each stage.
        kv_budgets: Bytes of KV memory of each stage.
        notes: Lines that a user should see.
        pooling: How embeddings are made unless a request says otherwise.
    """

    name: str
    folder: ModelFolder
    facts: ModelFacts
    tokenizer: Any
    grammars: Grammars
    limits: Limits
    device: Device
    ranges: tuple[StageRange, ...]
    caches: CacheFacts
    kv_budgets: tuple[int, ...]
    kv: KvOptions
    notes: tuple[str, ...]
    pooling: Pooling = Pooling.LAST


def open_served_model(
    source: str | Path | None, num_stages: int | None, kv: KvOptions
) -> ServedModel:
    """Find, check and cut a model.

    Args:
        source: A folder, a Hugging Face id, or None for the bundled model.
        num_stages: None for two, or as many as the layers allow.

    Raises:
        ModelError: It cannot be found, read or run.
        PlanError: It cannot be cut into so many stages, or has too little KV memory.
    """
    device = current_device()
    folder = find_model(str(source or MODEL_PATH))
    inspected = InspectedModel(folder, device)
    facts = inspected.facts
    name = model_name(source)
    notes = [device.note] if device.note else []
    wanted = num_stages or min(DEFAULT_NUM_STAGES, len(facts.legal_cuts) + 1)
    if facts.uncuttable_because is not None:
        notes.append(f"{name} is served unsplit: {facts.uncuttable_because}")
        wanted = 1
    pooling, pooling_note = model_pooling(folder.pooling_config)
    if pooling_note is not None:
        notes.append(f"{name}: {pooling_note}")
    ranges = tuple(even_split(facts.num_layers, facts.legal_cuts, wanted))
    caches = inspected.cache_facts(ranges, kv.bits)
    budgets = _budgets(caches, kv, facts)
    tokenizer = open_tokenizer(folder)
    return ServedModel(
        name=name,
        folder=folder,
        facts=facts,
        tokenizer=tokenizer,
        grammars=Grammars(tokenizer, facts.vocab_size),
        limits=_limits(facts, folder, caches, budgets),
        device=device,
        ranges=ranges,
        caches=caches,
        kv_budgets=budgets,
        kv=kv,
        notes=tuple(notes),
        pooling=pooling,
    )


def _budgets(caches: CacheFacts, kv: KvOptions, facts: ModelFacts) -> tuple[int, ...]:
    limit_bytes = memory_limit_bytes() if kv.memory_bytes is None else 0
    return kv_budgets(caches.costs, kv.memory_bytes, limit_bytes, facts.weight_bytes)


def _limits(
    facts: ModelFacts, folder: ModelFolder, caches: CacheFacts, budgets: tuple[int, ...]
) -> Limits:
    memory = KvMemory(caches.costs, budgets)
    capacity = memory.capacity_tokens()
    stage = memory.tightest_stage(capacity)
    return Limits(
        facts.vocab_size,
        folder.context_length,
        kv_tokens=capacity,
        kv_note=f"stage {stage} has {budgets[stage] / 2**20:,.1f} MiB; more: --kv-memory, "
        "smaller: --kv-bits",
        no_embeddings_because=facts.no_embeddings_because,
    )


def model_name(source: str | Path | None) -> str:
    """The name clients call the model by: a Hugging Face id as it is, a folder's own name."""
    if source is None:
        return DEMO_MODEL_NAME
    path = local_path(str(source))
    return path.resolve().name if path is not None else str(source)
