"""Which tensors of a checkpoint a model's parameters are made of.

Between a file and a parameter lies mlx-lm's `sanitize`, which renames, stacks, splits, fuses and
converts. A tensor that passes through unchanged is the same array afterwards; of all others MLX's
lazy graph tells where they come from. Nothing is read but headers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, load_model

from tbcluster.model.graph import OriginGraph
from tbcluster.model.hooks import call_layer, hook, unhook

SANITIZE = "sanitize"


@dataclass
class LazyModel:
    """A model as mlx-lm loads it, whose parameters are lazy, and what its files held.

    Attributes:
        tensors: By their names in the files, in the types of the files.
        parameters: By their paths, as they were right after loading. What happens to the model
            later, to compute in another type say, turns each into one of the same path.
    """

    model: nn.Module
    tensors: dict[str, mx.array]
    parameters: dict[str, mx.array]

    @cached_property
    def _names(self) -> dict[int, str]:
        return {id(array): name for name, array in self.tensors.items()}

    @cached_property
    def looked_at(self) -> frozenset[str]:
        """Tensors whose values something has asked for while loading: whatever came of that, every
        stage needs them."""
        names = list(self.tensors)
        return frozenset(names[i] for i in OriginGraph(list(self.tensors.values()), ()).computed)

    def needed_tensors(self, paths: Iterable[str]) -> frozenset[str]:
        """Names of the tensors that parameters with these paths are made of, and of those that
        every stage needs. What cannot be followed makes the set larger."""
        return self.looked_at.union(*(self._sources[path] for path in paths))

    @cached_property
    def _sources(self) -> dict[str, frozenset[str]]:
        final = dict(tree_flatten(self.model.parameters()))
        sources = {
            path: frozenset((self._names[id(array)],))
            for path, array in self.parameters.items()
            if id(array) in self._names and path in final
        }
        return sources | self._derived({p: a for p, a in final.items() if p not in sources})

    def _derived(self, made: dict[str, mx.array]) -> dict[str, frozenset[str]]:
        names = list(self.tensors)
        graph = OriginGraph(list(self.tensors.values()), list(made.values()))
        return {
            path: frozenset(names[i] for i in graph.origins(index))
            for index, path in enumerate(made)
        }


def load_lazily(path: Path) -> LazyModel:
    """What mlx-lm's own loading makes of a folder; raises what it raises."""
    watch = _SanitizeWatch()
    model, _ = load_model(path, lazy=True, get_model_classes=watch.classes)
    unhook([model])
    return LazyModel(model, watch.tensors, dict(tree_flatten(model.parameters())))


def weight_files(path: Path) -> list[Path]:
    """The files that mlx-lm loads from a folder, whatever its index says."""
    return sorted(path.glob("model*.safetensors"))


class _SanitizeWatch:
    """Keeps what a model's `sanitize` is given: the tensors as they are in the files."""

    def __init__(self) -> None:
        self.tensors: dict[str, mx.array] = {}
        self._has_sanitize = False

    def classes(self, config: dict[str, Any]) -> tuple[Any, Any]:
        """mlx-lm's own choice of a model's classes, whose model is watched."""
        model_class, arguments_class = _get_classes(config)

        def build(arguments: Any) -> nn.Module:
            model: nn.Module = model_class(arguments)
            self._has_sanitize = hasattr(model, SANITIZE)
            hook([model], self, SANITIZE)
            return model

        return build, arguments_class

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `hooks.LayerObserver`."""
        (tensors,) = args
        self.tensors = dict(tensors)
        return call_layer(layer, args, kwargs, SANITIZE) if self._has_sanitize else tensors
