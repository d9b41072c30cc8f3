"""What a node can give to others: its store, as the server of its weights sees it."""

import threading
from pathlib import Path

from tbcluster.checkpoint import ListedFile, merged
from tbcluster.errors import FetchError
from tbcluster.weights.answering import HeldFile
from tbcluster.weights.store import Revision, Store


class StoreShelf:
    """The store in this folder; it is read again at each call, because a fetch may be under way.
    Thread-safe."""

    def __init__(self, store: Path) -> None:
        self._store = Store(store)
        self._lock = threading.Lock()
        self._revisions: dict[tuple[str, str], Revision] = {}
        self._files: dict[tuple[str, str], dict[str, ListedFile]] = {}

    def find(self, model: str, revision: str, file: str) -> HeldFile | None:
        """A file; None where nothing of it is here."""
        with self._lock:
            opened = self._open(model, revision)
            listed = self._files.get((model, revision), {}).get(file)
            if opened is None or listed is None:
                return None
            path = opened.find(file)
            if path is None:
                return None
            spans = merged(opened.spans(listed))
        return HeldFile(path, listed.size, tuple((span.offset, span.end) for span in spans))

    def ledger(self, model: str, revision: str) -> HeldFile | None:
        """The list of a model's pieces that are here; None where there is none."""
        with self._lock:
            opened = self._open(model, revision)
        if opened is None:
            return None
        try:
            size = opened.ledger.path.stat().st_size
        except OSError:
            return None
        return HeldFile(opened.ledger.path, size, ((0, size),))

    def _open(self, model: str, revision: str) -> Revision | None:
        key = (model, revision)
        try:
            opened = self._revisions.get(key) or self._store.revision(model, revision)
            opened.ledger.refresh()
        except (FetchError, OSError):
            return None
        if key not in self._files:
            listing = opened.listing()
            if listing is None:
                return None  # strangers' names are not remembered
            self._revisions[key] = opened
            self._files[key] = {file.path: file for file in listing.files}
        return opened
