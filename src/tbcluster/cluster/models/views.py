"""What is told of models: each by itself, and all that a rack serves in one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.models.catalogue import Loadable
from tbcluster.cluster.models.residency import ModelState
from tbcluster.machine import Serving
from tbcluster.model.source import ModelFolder


@dataclass(frozen=True, slots=True)
class ModelView:
    """A model as it is now.

    Attributes:
        cluster: What answers for it; None unless it is loaded.
        doing: While it is loaded: with what, in words.
        error: Why loading it failed the last time, or why it, or a replica of it, answers no more.
        has_failed: Whether for that reason nothing of it answers.
        expires_in_s: Seconds until it is unloaded if nobody uses it; None for never.
    """

    loadable: Loadable
    state: ModelState
    cluster: Cluster | None = None
    doing: str | None = None
    error: str | None = None
    has_failed: bool = False
    num_uses: int = 0
    expires_in_s: float | None = None

    @property
    def name(self) -> str:
        """What clients call it."""
        return self.loadable.name

    @property
    def is_there(self) -> bool:
        """Whether requests can be put to it."""
        return self.state is ModelState.LOADED

    @property
    def context_length(self) -> int | None:
        """The longest context the model was made for, in tokens, where its config tells."""
        if self.cluster is not None:
            return self.cluster.context_length
        return ModelFolder(Path(), dict(self.loadable.config()), {}).context_length

    @property
    def size_bytes(self) -> int:
        """Of the weight files that are here."""
        if self.cluster is None:
            return self.loadable.size_bytes()
        return sum(file.stat().st_size for file in self.cluster.folder.path.glob("*.safetensors"))

    def config(self) -> Mapping[str, Any]:
        """Its config.json, which may have to be read."""
        return self.cluster.folder.config if self.cluster is not None else self.loadable.config()


def joined(servings: Sequence[Serving]) -> Serving | None:
    """Several models as a rack tells of them: one is told of as it is, more by their names."""
    if len(servings) < 2:
        return next(iter(servings), None)
    stages: dict[str, tuple[str, ...]] = {}
    for serving in servings:
        for node, lines in serving.stages.items():
            named = (f"{serving.model} {line}" for line in lines)
            stages[node] = (*stages.get(node, ()), *named)
    return Serving(
        model=", ".join(serving.model for serving in servings),
        state="; ".join(f"{serving.model} {serving.state}" for serving in servings),
        stages=stages,
    )
