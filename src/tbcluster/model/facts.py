"""What the coordinator must know of a model before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.nn as nn
from mlx.utils import tree_flatten

from tbcluster.core import CacheFacts, StageRange
from tbcluster.errors import CorruptModelError
from tbcluster.model.cache_facts import cache_facts
from tbcluster.model.device import Device
from tbcluster.model.loading import open_lazily
from tbcluster.model.quantized import check_quantized
from tbcluster.model.source import ModelFolder
from tbcluster.model.sources import LazyModel
from tbcluster.model.trace import ModelTrace
from tbcluster.model.tracer import trace


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Read from config, file headers and a trace; no weights are touched.

    Attributes:
        num_visits: How often one step passes through the stages (looped models: more than once).
        weight_bytes: All parameters, in the type they are computed in.
        uncuttable_because: One sentence, or None for a model that can be cut.
        no_embeddings_because: One sentence, or None for a model that gives embeddings.
    """

    num_layers: int
    legal_cuts: tuple[int, ...]
    num_visits: int
    vocab_size: int
    weight_bytes: int
    uncuttable_because: str | None
    no_embeddings_because: str | None


class InspectedModel:
    """A checked model folder, opened and traced once without reading weights.

    Args:
        opened: What was made of it already, of its config alone say; None to open its files.

    Attributes:
        opened: The model and the tensors of its files, all lazy.
        traced: What one step of it does.

    Raises:
        UnsupportedModelError: mlx-lm does not know the architecture.
        CorruptModelError: The weights do not fit the config.
    """

    def __init__(
        self, folder: ModelFolder, device: Device, opened: LazyModel | None = None
    ) -> None:
        self.folder = folder
        self.opened = opened or open_lazily(folder.path, device)
        self.traced = trace(self.opened.model)
        self.facts = _facts(folder, self.opened.model, self.traced)

    def cache_facts(self, ranges: Sequence[StageRange], kv_bits: int | None) -> CacheFacts:
        """What is known of the KV caches of stages with these layers.

        Raises:
            UnsupportedModelError: The architecture does not allow quantized KV caches.
        """
        self.check_kv_bits(kv_bits)
        return cache_facts(self.opened.model, self.traced, ranges, kv_bits)

    def check_kv_bits(self, kv_bits: int | None) -> None:
        """Make sure that it runs with KV caches of so many bits, None for plain ones.

        Raises:
            UnsupportedModelError: The architecture does not allow quantized KV caches.
        """
        if kv_bits is not None:
            check_quantized(self.opened.model, kv_bits)


def _facts(folder: ModelFolder, model: nn.Module, traced: ModelTrace) -> ModelFacts:
    text_config = folder.config.get("text_config") or {}
    vocab_size = traced.vocab_size or text_config.get("vocab_size", folder.config.get("vocab_size"))
    if not isinstance(vocab_size, int):
        raise CorruptModelError(f"{folder.path / 'config.json'} names no vocab_size")
    return ModelFacts(
        num_layers=traced.num_layers,
        legal_cuts=traced.legal_cuts,
        num_visits=max(1, traced.num_visits),
        vocab_size=vocab_size,
        weight_bytes=sum(array.nbytes for _, array in tree_flatten(model.parameters())),
        uncuttable_because=traced.uncuttable_because,
        no_embeddings_because=traced.no_embeddings_because,
    )
