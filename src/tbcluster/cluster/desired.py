"""What a rack is to serve, as a file: a coordinator that is started again after a crash or an
upgrade serves the same. An end on purpose leaves none."""

import logging
import threading
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import msgspec

from tbcluster.cluster.saved_preparation import SavedPreparation
from tbcluster.errors import TrustError
from tbcluster.hardware.private_file import PrivateFile

logger = logging.getLogger(__name__)

NAME = "served.json"
VERSION = 1


class DesiredModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that is loaded.

    Attributes:
        saved: How it was prepared; None if that is to be found out anew.
        sha256: Of `saved`: what was changed by hand or by half is not used.
    """

    name: str
    saved: SavedPreparation | None = None
    sha256: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    Attributes:
        given: The names of the models on the command line.
        unloaded: Those of them that were unloaded on purpose.
    """

    version: int
    given: tuple[str, ...] = ()
    models: tuple[DesiredModel, ...] = ()
    unloaded: tuple[str, ...] = ()


class _Version(msgspec.Struct):
    version: int


class DesiredModels:
    """The file in a state folder. A file that cannot be used counts for none, with a line, and what
    cannot be written is logged: neither ends a coordinator. Thread-safe; one process.

    Args:
        given: The names of the models on the command line.
        on_note: Called with each line a user should see.
    """

    def __init__(
        self,
        folder: Path,
        given: Sequence[str] = (),
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._file = PrivateFile(folder / NAME, TrustError)
        self._lock = threading.Lock()
        self._on_note = on_note
        self._is_sealed = False
        said = self._read()
        self._given = tuple(given)
        # What was named then and is not now was not loaded at run time.
        gone = set(said.given) - set(given)
        models = (model for model in said.models if model.name not in gone)
        self._models = {model.name: self._checked(model) for model in models}
        # Whoever names other models asks for them.
        self._unloaded = set(said.unloaded) if said.given == self._given else set()

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are to be loaded, in the order in which they were."""
        with self._lock:
            return tuple(self._models)

    def is_unloaded(self, name: str) -> bool:
        """Whether a model of the command line was unloaded on purpose."""
        with self._lock:
            return name in self._unloaded

    def saved(self, name: str) -> SavedPreparation | None:
        """How a model was prepared, where that is known."""
        with self._lock:
            model = self._models.get(name)
            return model.saved if model is not None else None

    def keep(self, name: str, saved: SavedPreparation | None) -> None:
        """A model is loaded, or its stages have other places."""
        with self._lock:
            self._models[name] = DesiredModel(name, saved, _digest(saved) if saved else "")
            self._unloaded.discard(name)
            self._write()

    def forget_preparation(self, name: str) -> None:
        """It could not be loaded as it was prepared."""
        with self._lock:
            if name in self._models:
                self._models[name] = DesiredModel(name)
                self._write()

    def forget(self, name: str, *, is_on_purpose: bool = False) -> None:
        """A model is not loaded any more.

        Args:
            is_on_purpose: Whether someone asked for that: it is not loaded again, though the
                command line names it.
        """
        with self._lock:
            was_there = self._models.pop(name, None) is not None
            is_news = is_on_purpose and name in self._given and name not in self._unloaded
            if is_news:
                self._unloaded.add(name)
            if was_there or is_news:
                self._write()

    def clear(self) -> None:
        """All of it ends on purpose."""
        with self._lock:
            self._models.clear()
            self._unloaded.clear()
            try:
                self._file.path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("%s cannot be removed: %s", self._file.path, error.strerror)

    def seal(self) -> None:
        """Another coordinator is to begin with what is there now: the file stays as it is, whatever
        becomes of the models while this one ends."""
        with self._lock:
            self._is_sealed = True

    @property
    def is_sealed(self) -> bool:
        """Whether nothing is written any more."""
        with self._lock:
            return self._is_sealed

    def _read(self) -> _File:
        try:
            content = self._file.read()
            if content is None:
                return _File(VERSION)
            version = msgspec.json.decode(content, type=_Version).version
            if version != VERSION:
                raise TrustError(f"it has version {version}, and this tbcluster reads {VERSION}")
            return msgspec.json.decode(content, type=_File)
        except (TrustError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._on_note(f"{self._file.path} cannot be used, all is planned anew: {error}")
            return _File(VERSION)

    def _checked(self, model: DesiredModel) -> DesiredModel:
        if model.saved is None or _digest(model.saved) == model.sha256:
            return model
        self._on_note(f"{self._file.path}: the plan of {model.name} was changed: it is made anew")
        return DesiredModel(model.name)

    def _write(self) -> None:
        if self._is_sealed:
            return
        models = tuple(self._models.values())
        content = _File(VERSION, self._given, models, tuple(sorted(self._unloaded)))
        try:
            with self._file.locked():
                self._file.replace(msgspec.json.format(msgspec.json.encode(content)))
        except TrustError as error:
            # A full disk ends no coordinator.
            logger.warning("%s: a coordinator after this one will have to plan anew", error)


def _digest(saved: SavedPreparation) -> str:
    return sha256(msgspec.json.encode(saved)).hexdigest()
