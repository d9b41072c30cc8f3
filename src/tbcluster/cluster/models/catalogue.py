"""Which models a server knows of: those it was given, and those in folders and stores."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tbcluster.demo import MODEL_PATH


@dataclass(frozen=True, slots=True)
class Loadable:
    """A model that can be loaded.

    Attributes:
        name: What clients call it.
        source: A folder, a Hugging Face id, or None for the bundled model.
        folder: Where its small files lie on this machine, if they do.
    """

    name: str
    source: str | Path | None
    folder: Path | None = None

    def config(self) -> Mapping[str, Any]:
        """Its config.json; empty where that is not here or no JSON object."""
        folder = MODEL_PATH if self.source is None else self.folder
        if folder is None:
            return {}
        try:
            content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}  # loading it says what is wrong
        return content if isinstance(content, dict) else {}

    def size_bytes(self) -> int:
        """Of the weight files that are here."""
        folder = MODEL_PATH if self.source is None else self.folder
        if folder is None:
            return 0
        try:
            return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        except OSError:
            return 0


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that can be loaded. Folders are read when someone asks, so that what is put there
    is found; where a name comes twice, the first counts.

    Attributes:
        given: Models that were named, in that order.
        folders: Each holds models: `NAME/config.json` or `OWNER/NAME/config.json`.
        held: Tells the models of a store or cache.
    """

    given: tuple[Loadable, ...]
    folders: tuple[Path, ...] = ()
    held: Sequence[Callable[[], Iterable[Loadable]]] = field(default_factory=tuple)

    @property
    def is_single(self) -> bool:
        """Whether there is one model and never another."""
        return len(self.given) == 1 and not self.folders and not self.held

    def all(self) -> dict[str, Loadable]:
        """By their names, those that were given first."""
        found: dict[str, Loadable] = {}
        for loadable in self._everything():
            found.setdefault(loadable.name, loadable)
        return found

    def find(self, name: str) -> Loadable | None:
        """The model of this name."""
        for loadable in self.given:
            if loadable.name == name:
                return loadable
        return self.all().get(name)

    def _everything(self) -> Iterator[Loadable]:
        yield from self.given
        for folder in self.folders:
            yield from models_in(folder)
        for held in self.held:
            yield from held()


def models_in(folder: Path) -> Iterator[Loadable]:
    """The models in a folder, by name."""
    for path in _folders(folder):
        if _is_model(path):
            yield Loadable(path.name, path, path)
            continue
        for inner in _folders(path):
            if _is_model(inner):
                yield Loadable(f"{path.name}/{inner.name}", inner, inner)


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(inner for inner in path.iterdir() if inner.is_dir())
    except OSError:
        return []


def _is_model(path: Path) -> bool:
    return (path / "config.json").is_file()
