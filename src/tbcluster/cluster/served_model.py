"""What is known of a model before any of it is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tbcluster.cluster.embedding_requests import model_pooling
from tbcluster.cluster.kv_options import KvOptions, StageMemory, kv_budgets
from tbcluster.cluster.layout import Spread, placed_by_hand, split_over
from tbcluster.core import CacheFacts, Pooling, StageRange
from tbcluster.demo import MODEL_PATH
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.limits import Limits
from tbcluster.errors import PlanError
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
        source: What the workers find it by: a folder, or a Hugging Face id that each node looks up
            for itself; empty for the bundled model.
        ranges: The layers of each stage.
        nodes: The node of each stage; None where all are on this machine.
        kv_budgets: Bytes of KV memory of each stage.
        notes: Lines that a user should see.
        pooling: How embeddings are made unless a request says otherwise.
    """

    name: str
    source: str
    folder: ModelFolder
    facts: ModelFacts
    tokenizer: Any
    grammars: Grammars
    limits: Limits
    device: Device
    ranges: tuple[StageRange, ...]
    nodes: tuple[str, ...] | None
    caches: CacheFacts
    kv_budgets: tuple[int, ...]
    kv: KvOptions
    notes: tuple[str, ...]
    pooling: Pooling = Pooling.LAST


def open_served_model(
    source: str | Path | None,
    num_stages: int | None,
    kv: KvOptions,
    spread: Spread | None = None,
) -> ServedModel:
    """Find, check and cut a model.

    Args:
        source: A folder, a Hugging Face id, or None for the bundled model.
        num_stages: None for two, or one on each node, or as many as the layers allow.
        spread: None for all stages on this machine.

    Raises:
        ModelError: It cannot be found, read or run.
        PlanError: It cannot be cut into so many stages, or has too little KV memory.
    """
    if spread is not None and kv.prefix_folder is not None:
        raise PlanError(
            f"prefixes in {kv.prefix_folder}: on a rack they are kept in memory alone; leave out "
            "--prefix-folder, or serve on this machine with --local"
        )
    device = current_device()
    folder = find_model(str(source or MODEL_PATH))
    inspected = InspectedModel(folder, device)
    facts = inspected.facts
    name = model_name(source)
    notes = [device.note] if device.note else []
    if facts.uncuttable_because is not None:
        notes.append(f"{name} is served unsplit: {facts.uncuttable_because}")
        num_stages = 1
    pooling, pooling_note = model_pooling(folder.pooling_config)
    if pooling_note is not None:
        notes.append(f"{name}: {pooling_note}")
    ranges, nodes = _placed(facts, num_stages, spread)
    caches = inspected.cache_facts(ranges, kv.bits)
    machines = _machines(facts, ranges, nodes, spread) if kv.memory_bytes is None else ()
    budgets = kv_budgets(caches.costs, kv.memory_bytes, machines)
    tokenizer = open_tokenizer(folder)
    return ServedModel(
        name=name,
        source=_for_nodes(source),
        folder=folder,
        facts=facts,
        tokenizer=tokenizer,
        grammars=Grammars(tokenizer, facts.vocab_size),
        limits=_limits(facts, folder, caches, budgets),
        device=device,
        ranges=ranges,
        nodes=nodes,
        caches=caches,
        kv_budgets=budgets,
        kv=kv,
        notes=tuple(notes),
        pooling=pooling,
    )


def _placed(
    facts: ModelFacts, num_stages: int | None, spread: Spread | None
) -> tuple[tuple[StageRange, ...], tuple[str, ...] | None]:
    """The layers of each stage, and its node."""
    num_layers, cuts = facts.num_layers, facts.legal_cuts
    if spread is None:
        wanted = num_stages or min(DEFAULT_NUM_STAGES, len(cuts) + 1)
        return tuple(even_split(num_layers, cuts, wanted)), None
    if spread.by_hand:
        places = placed_by_hand(spread.by_hand, num_layers, cuts)
    else:
        places = split_over(spread.sites, num_stages, num_layers, cuts)
    return tuple(place.layers for place in places), tuple(place.node for place in places)


def _machines(
    facts: ModelFacts,
    ranges: tuple[StageRange, ...],
    nodes: tuple[str, ...] | None,
    spread: Spread | None,
) -> list[StageMemory]:
    """The machine of each stage; weights are taken to be spread evenly over the layers."""
    weights = [facts.weight_bytes * (r.end - r.start) // facts.num_layers for r in ranges]
    if nodes is None or spread is None:
        limit = memory_limit_bytes()
        return [StageMemory("", limit, size) for size in weights]
    limits = {site.name: site.limit_bytes for site in spread.sites}
    return [
        StageMemory(node, limits[node], size) for node, size in zip(nodes, weights, strict=True)
    ]


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


def _for_nodes(source: str | Path | None) -> str:
    """What every node can find the model by."""
    if source is None:
        return ""
    path = local_path(str(source))
    return str(path.absolute()) if path is not None else str(source)


def model_name(source: str | Path | None) -> str:
    """The name clients call the model by: a Hugging Face id as it is, a folder's own name."""
    if source is None:
        return DEMO_MODEL_NAME
    path = local_path(str(source))
    return path.resolve().name if path is not None else str(source)
