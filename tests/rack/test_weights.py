"""Weights on their way to the nodes of a rack: once from the hub, the rest from node to node."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tbcluster.weights.copying import NUM_THREADS
from tbcluster.weights.ledger import Ledger, Piece
from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.hub import BLOCK_BYTES
from tests.doubles.namespaces import Network, needs_namespaces
from tests.doubles.rack import COMMAND_S, RackDouble
from tests.doubles.waiting import wait_until
from tests.rack.intruders import answers_to_tls

pytestmark = needs_namespaces
NUM_LAYERS = 9
LARGE = LlamaSizes(NUM_LAYERS, hidden_size=256, intermediate_size=896)
SMALL = LlamaSizes(NUM_LAYERS, hidden_size=128, intermediate_size=512)
THIRDS = {"head": (0, 3), "two": (3, 6), "three": (6, 9)}
# Small files and headers are in it; what two nodes asked for at once may not be.
ONE_COPY = 1.05
# The hub sends one more block to each connection of three nodes before it learns of their end.
ON_THEIR_WAY_BYTES = 3 * NUM_THREADS * BLOCK_BYTES
SLOW_BYTES_PER_S = 800_000
MODEL = "owner/tiny"


@dataclass(frozen=True)
class Copied:
    """What a fetch has brought about."""

    folders: dict[str, str]
    statuses: dict[str, Any]
    needs: dict[str, list[tuple[str, int, int]]]

    def total(self, what: str) -> int:
        """Of all nodes."""
        return sum(status[what] for status in self.statuses.values())


class HubOfModel:
    """A hub with one model, on a machine of the network; its log counts what it has sent."""

    def __init__(
        self, network: Network, address: str, folder: Path, sizes: LlamaSizes, bytes_per_s: int
    ) -> None:
        self.model = write_llama(folder / MODEL, sizes, num_shards=2, with_tokenizer=True)
        self.total_bytes = sum(file.stat().st_size for file in self.model.iterdir())
        self._log = folder / "log"
        self._log.touch()
        options = ["--folder", str(folder), "--host", address, "--log", str(self._log)]
        self._process = subprocess.Popen(
            [
                *network.command("hub"),
                *[sys.executable, "-m", "tests.doubles.hub", *options],
                *["--bytes-per-s", str(bytes_per_s)],
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()

    @property
    def sent_bytes(self) -> int:
        """Of files, to all."""
        return sum(json.loads(line)["bytes"] for line in self._log.read_text().splitlines())

    def differences(self, copied: Copied) -> list[str]:
        """Spans that a node needs and does not have as they are here."""
        return [
            f"{node}: {span}"
            for node, spans in copied.needs.items()
            for span in spans
            if read(Path(copied.folders[node]), *span) != read(self.model, *span)
        ]

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


class WeightRack(RackDouble):
    """Three nodes, and a fourth machine at the same switch for hubs."""

    def __init__(self, network: Network, folder: Path) -> None:
        nodes = ("head", "two", "three")
        network.add(*nodes, "hub", "stranger")
        ends = network.switch(*nodes, "hub", "stranger")
        self.ends = {end.node: end for end in ends}
        self._folder = folder
        self._num_hubs = 0
        super().__init__(network, *nodes)

    def serve(self) -> None:
        """Start the agents, and a coordinator that fetches what it is told to."""
        self.enroll_all()
        for node in self.nodes:
            self.keep(node, "agent")
        self._coordinator = subprocess.Popen(
            [*self.network.command("head"), sys.executable, "-m", "tests.doubles.fetch_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self._env("head"),
        )

    @contextmanager
    def hub(self, sizes: LlamaSizes, bytes_per_s: int = 0) -> Iterator[HubOfModel]:
        """A hub of its own, and so a model of which nobody has anything."""
        self._num_hubs += 1
        folder = self._folder / f"hub-{self._num_hubs}"
        seeded = replace(sizes, max_position_embeddings=2048 + self._num_hubs)
        with closing(
            HubOfModel(self.network, self.ends["hub"].ipv4, folder, seeded, bytes_per_s)
        ) as made:
            yield made

    def fetch(self, hub: HubOfModel, **layers: tuple[int, int]) -> Copied:
        """Have these layers of its model fetched."""
        self.begin(hub, **layers)
        return self.fetched()

    def begin(self, hub: HubOfModel, **layers: tuple[int, int]) -> None:
        """The same, beside the test."""
        assert self._coordinator.stdin is not None
        asked = {"hub": hub.url, "model": MODEL, "layers": layers}
        self._coordinator.stdin.write(json.dumps(asked) + "\n")
        self._coordinator.stdin.flush()

    def fetched(self) -> Copied:
        """What has come of it."""
        assert self._coordinator.stdout is not None
        line = self._coordinator.stdout.readline()
        assert line, self.said()
        return Copied(**json.loads(line))

    def close(self) -> None:
        self._coordinator.communicate(timeout=COMMAND_S)
        super().close()

    @contextmanager
    def without_hub(self, *nodes: str) -> Iterator[None]:
        """What these nodes send to hubs is swallowed without a word."""
        address = self.ends["hub"].ipv4
        for node in nodes:
            self.network.swallow(node, address)
        try:
            yield
        finally:
            for node in nodes:
                self.network.swallow(node, address, ends=True)

    def fetching(self, node: str) -> list[psutil.Process]:
        """The processes that fetch there."""
        return [one for one in self.network.processes(node) if "tbcluster.weights" in words(one)]

    def noted_bytes(self) -> int:
        """What the ledgers of all nodes speak of, of all models."""
        paths = (path for node in self.nodes for path in self.home(node).rglob("ledger"))
        return sum(piece.length for path in paths for piece in pieces_noted(path))

    def _env(self, node: str) -> dict[str, str]:
        cache = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(self.home(node).parent / f"hf-{node}")}
        return {**super()._env(node), **cache}


def pieces_noted(path: Path) -> list[Piece]:
    """What the ledger in this file speaks of."""
    ledger = Ledger(path)
    ledger.refresh()
    return [piece for file in ledger.holdings.files for piece in ledger.holdings.of(file)]


def words(process: psutil.Process) -> list[str]:
    """Of its command; none once it is gone."""
    with suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


def read(folder: Path, file: str, offset: int, length: int) -> bytes:
    """A span of a file."""
    with (folder / file).open("rb") as content:
        content.seek(offset)
        return content.read(length)


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeightRack]:
    with Network() as network, WeightRack(network, tmp_path_factory.mktemp("hubs")) as made:
        made.serve()
        yield made


def test_a_model_leaves_the_hub_once_and_a_new_plan_moves_layers_between_nodes(
    rack: WeightRack,
) -> None:
    with rack.hub(LARGE) as hub:
        first = rack.fetch(hub, **THIRDS)
        assert hub.total_bytes > 30e6
        assert hub.differences(first) == []
        sent_bytes = hub.sent_bytes
        assert sent_bytes <= ONE_COPY * hub.total_bytes
        assert first.total("hub_bytes") < sent_bytes
        # The same again: nothing moves.
        again = rack.fetch(hub, **THIRDS)
        assert again.folders == first.folders
        assert again.total("hub_bytes") == again.total("neighbour_bytes") == 0
        moved = rack.fetch(hub, head=(0, 2), two=(2, 7), three=(7, 9))
        assert hub.differences(moved) == []
        assert hub.sent_bytes == sent_bytes
        layer_bytes = sum(length for _, _, length in first.needs["three"]) / 3
        # Layer 2 from the head, layer 6 from three.
        assert moved.total("neighbour_bytes") == 2 * layer_bytes
        assert moved.statuses["two"]["neighbour_bytes"] == 2 * layer_bytes


def test_fetches_that_are_killed_go_on_where_they_were(rack: WeightRack) -> None:
    with rack.hub(SMALL, SLOW_BYTES_PER_S) as hub:
        noted_before = rack.noted_bytes()
        rack.begin(hub, **THIRDS)
        wait_until(
            lambda: rack.noted_bytes() - noted_before > 0.5 * hub.total_bytes, "a part is there"
        )
        for node in rack.nodes:
            for process in rack.fetching(node):
                process.send_signal(signal.SIGKILL)
        kept_bytes = rack.noted_bytes() - noted_before
        lost_bytes = hub.sent_bytes - kept_bytes
        copied = rack.fetched()
        assert hub.differences(copied) == []
        # Pieces that were on their way were lost; what was there was not.
        assert hub.sent_bytes <= ONE_COPY * hub.total_bytes + lost_bytes + ON_THEIR_WAY_BYTES


def test_nodes_without_the_hub_get_it_from_the_one_that_reaches_it(rack: WeightRack) -> None:
    """The head alone is connected to the internet, whose ways from the others lead nowhere."""
    with rack.hub(SMALL) as hub, rack.without_hub("two", "three"):
        started = time.monotonic()
        copied = rack.fetch(hub, **THIRDS)
        assert time.monotonic() - started < 40.0
        assert hub.differences(copied) == []
        assert hub.sent_bytes <= ONE_COPY * hub.total_bytes
        assert {node: copied.statuses[node]["hub_bytes"] for node in ("two", "three")} == {
            "two": 0,
            "three": 0,
        }


def test_a_byte_that_flipped_is_found_and_fetched_again(rack: WeightRack) -> None:
    with rack.hub(SMALL) as hub:
        copied = rack.fetch(hub, **THIRDS)
        file, offset, length = copied.needs["two"][0]
        path = Path(copied.folders["two"]) / file
        with path.open("r+b") as content:
            content.seek(offset + length // 2)
            (byte,) = content.read(1)
            content.seek(-1, os.SEEK_CUR)
            content.write(bytes([byte ^ 1]))
        assert hub.differences(copied) == [f"two: {[file, offset, length]}"]
        again = rack.fetch(hub, **THIRDS)
        assert hub.differences(again) == []
        assert again.total("hub_bytes") == length


def test_strangers_get_nothing_from_a_node_that_shares(rack: WeightRack, tmp_path: Path) -> None:
    """Neither with no certificate nor with one of their own; the nodes do."""
    ports = [(rack.ends[node].ipv4, port) for node in rack.nodes for port in rack.listening(node)]
    answers = answers_to_tls(rack.network, "stranger", ports, tmp_path)
    # It is the port where TLS is spoken, and it says nothing but that.
    assert len(answers) == len(rack.nodes)
    assert set(answers.values()) == {b""}
