"""Having parts of a model on this disk: what is here is used, the rest is fetched and verified."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tbcluster.checkpoint import ListedFile, Listing, Span, num_bytes
from tbcluster.errors import FetchError
from tbcluster.weights.assigning import HUB
from tbcluster.weights.checking import have_hashes, recheck, reporting
from tbcluster.weights.copying import Copiers, Sources
from tbcluster.weights.header_fetching import fetch_headers
from tbcluster.weights.headers import Header, Pieces, parse_header
from tbcluster.weights.hub import Hub
from tbcluster.weights.in_place import use_in_place
from tbcluster.weights.ledger import Dropped, Piece
from tbcluster.weights.room import RESERVE_BYTES, check_room
from tbcluster.weights.store import Revision, Store, read_header, writes
from tbcluster.weights.views import make_view
from tbcluster.weights.writing import RunWriter, seal
from tbcluster.wire.errands import Checking, Fetched, Fetching, FetchPart, FetchSpec

REPORT_S = 0.2

NO_HEADERS: Mapping[str, bytes] = MappingProxyType({})

OnProgress = Callable[[Fetching | Checking], None]


def fetch(
    spec: FetchSpec,
    on_progress: OnProgress = lambda _: None,
    reserve_bytes: int = RESERVE_BYTES,
    headers: Mapping[str, bytes] = NO_HEADERS,
) -> Fetched:
    """Have all parts of a model here, and a folder to load them from. With no parts nothing is
    fetched: what lies elsewhere on this machine is noted for other nodes to copy.

    Args:
        headers: Those of files with weights that have been fetched just now, by path.

    Raises:
        FetchError: Something cannot be had from anywhere, or is not what was listed.
        DiskFullError: There is no room for it.
    """
    revision = Store(Path(spec.store)).revision(spec.listing.model, spec.listing.revision)
    sources = Sources(spec.listing, Hub(spec.hub), spec.neighbours, spec.tls_files)
    with revision.locked(spec.listing), writes(revision.path):
        use_in_place(revision, spec.listing, spec.folders)
        if not spec.parts:
            return Fetched("", 0, 0, 0)
        recheck(revision, spec.listing.files, reporting(on_progress))
        return _Fetch(revision, sources, reserve_bytes, on_progress).run(spec.parts, headers)


class _Fetch:
    """One fetch of a revision that is locked."""

    def __init__(
        self, revision: Revision, sources: Sources, reserve_bytes: int, on_progress: OnProgress
    ) -> None:
        self._revision = revision
        self._sources = sources
        self._listing: Listing = sources.listing
        self._reserve_bytes = reserve_bytes
        self._on_progress = on_progress
        self._on_checked = reporting(on_progress)
        self._told_at = 0.0
        self._total_bytes = self._held_bytes = 0

    def run(self, parts: Sequence[FetchPart], headers: Mapping[str, bytes]) -> Fetched:
        fresh = self._fetch_headers(parts, headers)
        pieces = Pieces(self._listing, self._headers(fresh))
        wanted = dict.fromkeys(pieces.always, HUB)
        for part in parts:
            wanted |= dict.fromkeys(pieces.touching(part.spans), part.source)
        missing = {piece: wanted[piece] for piece in wanted if not self._revision.holds(piece)}
        self._total_bytes = num_bytes(wanted)
        self._held_bytes = self._total_bytes - num_bytes(missing)
        check_room(self._revision, self._listing, missing, self._reserve_bytes)
        self._make_parts(missing)
        self._keep_headers(pieces, fresh)
        self._copy({piece: missing[piece] for piece in missing if not self._revision.holds(piece)})
        self._finish(pieces)
        self._tell(is_last=True)
        return Fetched(str(self._folder(wanted)), self._held_bytes, *self._received())

    def _fetch_headers(
        self, parts: Sequence[FetchPart], known: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """Those that are not here."""
        first = {
            span.file: part.source for part in parts for span in part.spans if span.offset == 0
        }
        missing = [
            file
            for file in self._listing.files
            if file.holds_weights and not self._has_header(file)
        ]
        unknown = [file for file in missing if file.path not in known]
        fetched = fetch_headers(self._sources, unknown, first)
        return fetched | {file.path: known[file.path] for file in missing if file.path in known}

    def _has_header(self, file: ListedFile) -> bool:
        if file.path in self._revision.holdings.lies:
            return True
        pieces = self._revision.holdings.of(file.path)
        return bool(pieces) and pieces[0].offset == 0

    def _headers(self, fresh: dict[str, bytes]) -> dict[str, Header]:
        headers = {}
        for file in self._listing.files:
            path = self._revision.find(file.path)
            if file.path in fresh:
                headers[file.path] = parse_header(file, fresh[file.path])
            elif file.holds_weights and path is not None:
                headers[file.path] = parse_header(file, read_header(path, file))
        return headers

    def _make_parts(self, missing: Iterable[Span]) -> None:
        files = {span.file for span in missing}
        for file in self._listing.files:
            if file.path in files or (not file.size and self._revision.find(file.path) is None):
                self._revision.make_part(file)

    def _keep_headers(self, pieces: Pieces, fresh: dict[str, bytes]) -> None:
        written: list[Piece] = []
        for file, content in fresh.items():
            header = pieces.of(file)[:1]
            with RunWriter(self._revision.part(file), header, {}, written.append) as writer:
                writer.write(content)
        seal(self._revision, written)

    def _copy(self, missing: dict[Span, str]) -> None:
        if missing:
            Copiers(self._revision, self._sources, missing).run(self._tell)

    def _finish(self, pieces: Pieces) -> None:
        """Give files that are whole their names. One whose hash is wrong comes from the hub once
        more: which of its pieces is bad, nobody can tell."""
        bad = self._name_whole_files()
        if bad:
            self._revision.ledger.append(Dropped(file.path) for file in bad)
            again = [piece for file in bad for piece in pieces.of(file.path)]
            self._copy(dict.fromkeys(again, HUB))
            bad = self._name_whole_files()
        if bad:
            self._revision.ledger.append(Dropped(file.path) for file in bad)
            raise FetchError(
                f"{bad[0].path} of {self._listing.model} is not what the hub says it is: its "
                f"SHA-256 differs from {bad[0].sha256} though it was fetched twice; see whether "
                "this machine's disk and memory are sound, and start again"
            )
        self._revision.stamp(file.path for file in self._listing.files)

    def _name_whole_files(self) -> list[ListedFile]:
        whole = [
            file
            for file in self._listing.files
            if self._revision.part(file.path).exists() and self._revision.holdings.is_whole(file)
        ]
        known = {file: file.sha256 for file in whole if file.sha256 is not None}
        are_good = have_hashes(
            [(self._revision.part(file.path), digest) for file, digest in known.items()],
            self._on_checked,
        )
        bad = [file for file, is_good in zip(known, are_good, strict=True) if not is_good]
        for file in whole:
            if file not in bad:
                self._revision.finish(file.path)
        return bad

    def _folder(self, wanted: Iterable[Span]) -> Path:
        """Where all files of the model are under their names: a folder that holds them itself, or
        one of links."""
        places = {}
        for file in self._listing.files:
            path = self._revision.find(file.path)
            if path is None:
                raise FetchError(f"{file.path} was here, and is gone: start again")
            places[file.path] = path
        config = places.get("config.json")
        parent = config.parent if config is not None else self._revision.path
        if all(path == parent / file for file, path in places.items()):
            return parent
        name = self._listing.model.rsplit("/", 1)[-1]
        return make_view(self._revision.own, name, wanted, places)

    def _received(self) -> tuple[int, int]:
        """Bytes from the hub, and from neighbours."""
        from_hub = self._sources.received[HUB]
        return from_hub, self._sources.received.total() - from_hub

    def _tell(self, *, is_last: bool = False) -> None:
        now = time.monotonic()
        if is_last or now - self._told_at >= REPORT_S:
            self._told_at = now
            from_hub, from_neighbours = self._received()
            done = self._held_bytes + from_hub + from_neighbours
            done = self._total_bytes if is_last else min(done, self._total_bytes)
            self._on_progress(
                Fetching(done, self._total_bytes, self._held_bytes, from_hub, from_neighbours)
            )
