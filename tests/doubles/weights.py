"""Models on a hub of their own, fetches as processes, and nodes that others copy from."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tbcluster.checkpoint import Span
from tbcluster.weights.library import ModelSource
from tbcluster.weights.serving import WeightServer
from tbcluster.weights.shelf import StoreShelf
from tbcluster.weights.store import headers_in, pieces_in
from tbcluster.weights.tls import new_certificate
from tbcluster.wire.control import Failed, Report, decode_report, encode_line
from tbcluster.wire.errands import Fetched, FetchPart, FetchSpec, Neighbour, SurveySpec
from tests.doubles.waiting import join, wait_until

MODEL = "owner/tiny"


def whole(source: ModelSource) -> tuple[Span, ...]:
    """All bytes of a model."""
    return tuple(Span(file.path, 0, file.size) for file in source.listing.files)


def layer_spans(source: ModelSource, *layers: int) -> tuple[Span, ...]:
    """The pieces of these layers' tensors, and what every stage needs."""
    names = tuple(f"model.layers.{layer}." for layer in layers)
    found = [
        span
        for header in headers_in(source.folder, source.listing).values()
        for name, span in header.tensors.items()
        if name.startswith(names)
    ]
    pieces = pieces_in(source.folder, source.listing)
    return tuple(sorted({*pieces.always, *pieces.touching(found)}))


def fetch_spec(
    source: ModelSource,
    store: Path,
    hub: str,
    spans: Sequence[Span] | None = None,
    parts: Sequence[FetchPart] | None = None,
    neighbours: Sequence[Neighbour] = (),
    tls_files: Sequence[str] = (),
    folders: Sequence[str] = (),
) -> FetchSpec:
    """Of a whole model from the hub, unless something else is said."""
    if parts is None:
        parts = [FetchPart(tuple(whole(source) if spans is None else spans))]
    return FetchSpec(
        source.listing,
        tuple(parts),
        tuple(neighbours),
        hub,
        str(store),
        tuple(folders),
        tuple(tls_files),
    )


class Errand:
    """`python -m tbcluster.weights` (or another module of it) with one spec."""

    def __init__(
        self,
        spec: FetchSpec | SurveySpec,
        env: dict[str, str] | None = None,
        module: str = "tbcluster.weights",
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "HF_HUB_OFFLINE": "0", **(env or {})},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(encode_line(spec))
        self.process.stdin.flush()
        self.reports: list[Report] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.reports.append(decode_report(line))

    def result(self, deadline_s: float = 60.0) -> Report:
        """Its last report, once it has ended."""
        wait_until(lambda: self.process.poll() is not None, "the errand has ended", deadline_s)
        join(self._thread, "all that the errand said is read")
        self.close()
        return self.reports[-1]

    def fetched(self) -> Fetched:
        """What it has fetched."""
        result = self.result()
        assert isinstance(result, Fetched), result
        return result

    def failed(self) -> Failed:
        """Why it has not."""
        result = self.result()
        assert isinstance(result, Failed), result
        return result

    def kill(self) -> None:
        """As kill -9 does."""
        self.process.kill()
        self.process.wait()
        join(self._thread, "all that the errand said is read")
        self.close()

    def close(self) -> None:
        """Its pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Certificates:
    """One node's own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, key = new_certificate()
        self.files = (str(folder / "certificate.pem"), str(folder / "key.pem"))
        for path, content in zip(self.files, (self.certificate, key), strict=True):
            Path(path).write_text(content)


@contextmanager
def sharing(
    name: str, store: Path, own: Certificates, accepted: Sequence[Certificates]
) -> Iterator[Neighbour]:
    """A node whose store others can copy from."""
    server = WeightServer(StoreShelf(store), own.files)
    try:
        server.accept([other.certificate for other in accepted])
        yield Neighbour(name, name, ("127.0.0.1",), server.port, own.certificate)
    finally:
        server.close()
