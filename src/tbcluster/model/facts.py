"""What the coordinator must know of a model before anything is loaded."""

from dataclasses import dataclass

from tbcluster.errors import CorruptModelError
from tbcluster.model.device import Device
from tbcluster.model.loading import open_model
from tbcluster.model.source import ModelFolder
from tbcluster.model.tracer import trace


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Read from config, file headers and a trace; no weights are touched.

    Attributes:
        num_visits: How often one step passes through the stages (looped models: more than once).
        uncuttable_because: One sentence, or None for a model that can be cut.
    """

    num_layers: int
    legal_cuts: tuple[int, ...]
    num_visits: int
    vocab_size: int
    uncuttable_because: str | None


def model_facts(folder: ModelFolder, device: Device) -> ModelFacts:
    """Inspect a checked model folder.

    Raises:
        UnsupportedModelError: mlx-lm does not know the architecture.
        CorruptModelError: The weights do not fit the config.
    """
    traced = trace(open_model(folder.path, device))
    text_config = folder.config.get("text_config") or {}
    vocab_size = traced.vocab_size or text_config.get("vocab_size", folder.config.get("vocab_size"))
    if not isinstance(vocab_size, int):
        raise CorruptModelError(f"{folder.path / 'config.json'} names no vocab_size")
    return ModelFacts(
        num_layers=traced.num_layers,
        legal_cuts=traced.legal_cuts,
        num_visits=max(1, traced.num_visits),
        vocab_size=vocab_size,
        uncuttable_because=traced.uncuttable_because,
    )
