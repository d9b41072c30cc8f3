"""Weights copied from a neighbour against the same bytes over a plain TCP connection.

The machines are network namespaces with a cable between them (root on Linux). A copy is all of it:
inside TLS, hashed, on the disk and in the ledger. Plain TCP goes from memory to memory.
"""

import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import MEGABYTE, Bar, Report, interleaved_pairs, report_ratio
from tbcluster.checkpoint import Listing, Span
from tbcluster.weights.fetching import fetch
from tbcluster.weights.listing import list_folder
from tbcluster.weights.survey import survey
from tbcluster.wire.control import Bound, decode_report, encode_line
from tbcluster.wire.errands import (
    Accepted,
    FetchPart,
    FetchSpec,
    Neighbour,
    ShareSpec,
    SurveySpec,
)
from tests.doubles.namespaces import Network, can_make_namespaces
from tests.doubles.tls_peers import TlsPeer

TENSOR_BYTES = 8 << 20
NUM_TENSORS, QUICK_TENSORS = 64, 6
NUM_PAIRS = 5
BAR = Bar(">=", 0.6, "x")
SHAPED_MBIT = 1600
BLOCK_BYTES = 1 << 20
MODEL = "owner/bench"
HAS, WANTS = "has", "wants"
# Nothing answers there: all comes from the neighbour.
NO_HUB = "http://127.0.0.1:9"

PARTS = {
    "shaped": f"over a link of {SHAPED_MBIT} Mbit/s",
    "unshaped": "as fast as this machine can, both ends and the disk",
}


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Measure the parts on this machine alone."""
    if not can_make_namespaces():
        sys.exit("bench: neighbour-copy needs network namespaces: run it as root on Linux")
    report = Report("neighbour-copy")
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder), QUICK_TENSORS if quick else NUM_TENSORS)
        for part in only or PARTS:
            with Network() as network, neighbours(network, Path(folder) / part, model) as pair:
                if part == "shaped":
                    pair.shape()
                _measure(report, part, pair, BAR if part == "shaped" else None)
    return report


def _measure(report: Report, part: str, pair: "Neighbours", bar: Bar | None) -> None:
    measured = interleaved_pairs(pair.copied_per_s, pair.plain_per_s, NUM_PAIRS)
    for side, rates in zip(("copied", "plain TCP"), zip(*measured, strict=True), strict=True):
        report.add(f"{part}: {side}", statistics.median(rates) / MEGABYTE, "MB/s")
    report_ratio(report, f"{part}: speed copied / plain TCP", measured, bar)


class Neighbours:
    """Two machines, of which one has a model and lets the other copy it.

    Args:
        spec: What the other one asks for.
    """

    def __init__(self, network: Network, spec: FetchSpec, address: str) -> None:
        self._network = network
        self._spec = spec
        self._address = address
        self._num_bytes = spec.listing.total_bytes

    def shape(self) -> None:
        """Slow the cable down, both ways."""
        for node in (HAS, WANTS):
            self._network.shape(node, "eth0", SHAPED_MBIT)

    def copied_per_s(self) -> float:
        """Bytes a second, of a copy that is verified and on the disk."""
        with self._network.inside(WANTS):
            started = time.perf_counter()
            fetched = fetch(self._spec)
            rate = self._num_bytes / (time.perf_counter() - started)
        if fetched.neighbour_bytes < self._num_bytes:
            sys.exit(f"bench: not all was copied: {fetched}")
        shutil.rmtree(self._spec.store)
        return rate

    def plain_per_s(self) -> float:
        """Bytes a second over a socket."""
        block = bytes(BLOCK_BYTES)
        with self._network.connected(HAS, WANTS, self._address) as (sender, receiver):

            def send() -> None:
                for start in range(0, self._num_bytes, BLOCK_BYTES):
                    sender.sendall(block[: self._num_bytes - start])

            thread = threading.Thread(target=send)
            started = time.perf_counter()
            thread.start()
            buffer, left = bytearray(BLOCK_BYTES), self._num_bytes
            while left > 0:
                left -= receiver.recv_into(buffer)
            seconds = time.perf_counter() - started
            thread.join()
        return self._num_bytes / seconds


@contextmanager
def neighbours(network: Network, folder: Path, model: Path) -> Iterator[Neighbours]:
    """Two machines with a cable between them, and the server of the one's weights."""
    network.add(HAS, WANTS)
    has, wants = network.cable(HAS, WANTS)
    listing = replace(list_folder(model), model=MODEL, source=MODEL)
    store = str(folder / HAS)
    survey(SurveySpec(listing, store, (str(model.parent),)), lambda _: None)
    peers = {node: TlsPeer.at(folder / f"{node}-certificate") for node in (HAS, WANTS)}
    server = subprocess.Popen(
        [*network.command(HAS), sys.executable, "-m", "tbcluster.weights.serving"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(encode_line(ShareSpec(store, peers[HAS].files)))
    server.stdin.write(encode_line(Accepted((peers[WANTS].certificate,))))
    server.stdin.flush()
    bound = decode_report(server.stdout.readline())
    assert isinstance(bound, Bound), bound
    try:
        neighbour = Neighbour(HAS, HAS, (has.ipv4,), bound.port, peers[HAS].certificate)
        spec = FetchSpec(
            listing,
            (FetchPart(whole(listing), HAS),),
            (neighbour,),
            NO_HUB,
            str(folder / WANTS),
            tls_files=peers[WANTS].files,
        )
        yield Neighbours(network, spec, wants.ipv4)
    finally:
        server.communicate()


def whole(listing: Listing) -> tuple[Span, ...]:
    """All bytes of a model."""
    return tuple(Span(file.path, 0, file.size) for file in listing.files)


def write_model(folder: Path, num_tensors: int) -> Path:
    """A folder with a config, and random bytes in the form of weights."""
    path = folder / "models" / MODEL.rpartition("/")[2]
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    bounds = [(number * TENSOR_BYTES, (number + 1) * TENSOR_BYTES) for number in range(num_tensors)]
    entries = {
        f"model.layers.{number}.weight": {
            "dtype": "U8",
            "shape": [TENSOR_BYTES],
            "data_offsets": bound,
        }
        for number, bound in enumerate(bounds)
    }
    header = json.dumps(entries).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for _ in bounds:
            file.write(os.urandom(TENSOR_BYTES))
    return path
