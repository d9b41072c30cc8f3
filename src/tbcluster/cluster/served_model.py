"""What is known of a model before any of it is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tbcluster.core import StageRange
from tbcluster.demo import MODEL_PATH
from tbcluster.engine.limits import Limits
from tbcluster.model.device import Device, current_device
from tbcluster.model.facts import ModelFacts, model_facts
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
        ranges: The layers of each stage.
        notes: Lines that a user should see.
    """

    name: str
    folder: ModelFolder
    facts: ModelFacts
    tokenizer: Any
    limits: Limits
    device: Device
    ranges: tuple[StageRange, ...]
    notes: tuple[str, ...]


def open_served_model(source: str | Path | None, num_stages: int | None) -> ServedModel:
    """Find, check and cut a model.

    Args:
        source: A folder, a Hugging Face id, or None for the bundled model.
        num_stages: None for two, or as many as the layers allow.

    Raises:
        ModelError: It cannot be found, read or run.
        PlanError: It cannot be cut into so many stages.
    """
    device = current_device()
    folder = find_model(str(source or MODEL_PATH))
    facts = model_facts(folder, device)
    name = model_name(source)
    notes = [device.note] if device.note else []
    wanted = num_stages or min(DEFAULT_NUM_STAGES, len(facts.legal_cuts) + 1)
    if facts.uncuttable_because is not None:
        notes.append(f"{name} is served unsplit: {facts.uncuttable_because}")
        wanted = 1
    return ServedModel(
        name=name,
        folder=folder,
        facts=facts,
        tokenizer=open_tokenizer(folder),
        limits=Limits(facts.vocab_size, folder.context_length),
        device=device,
        ranges=tuple(even_split(facts.num_layers, facts.legal_cuts, wanted)),
        notes=tuple(notes),
    )


def model_name(source: str | Path | None) -> str:
    """The name clients call the model by: a Hugging Face id as it is, a folder's own name."""
    if source is None:
        return DEMO_MODEL_NAME
    path = local_path(str(source))
    return path.resolve().name if path is not None else str(source)
