"""What hostile clients cost a good one: attacks beside a stream, in turns with quiet.

The server is a process of its own with short deadlines (tests.doubles.impatient_server), the
attackers are another; this one reads the good client's stream and does nothing else meanwhile.
"""

import itertools
import json
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from benchmarks.attackers import Attackers
from benchmarks.full_pipeline.settings import DECODE_MODEL, TINY_MODEL
from benchmarks.harness import MEGABYTE, Bar, Report, note, report_ratio
from benchmarks.http_clients import post
from benchmarks.memory import HAS_PROC, resident_bytes
from tests.doubles.checkpoints import LlamaSizes
from tests.doubles.impatient_server import ImpatientServer
from tests.doubles.tokenizers import write_tool_model
from tests.doubles.waiting import wait_until

MODEL = "attacked"
SEED = 1
GAP_BAR = Bar("<=", 1.10, "x")
MEMORY_BAR = Bar("<=", 1.05, "x")
# Short, so that the cost of a longer context is in quiet and attacked times alike.
STREAM_TOKENS = 60
QUESTION = {
    "model": MODEL,
    "prompt": "What is the capital of France?",
    "max_tokens": 40,
    "temperature": 0,
    "ignore_eos": True,
    "cache_prompt": False,
}

PARTS = {"attacks": "1,000 attacks beside a stream of a 70M model"}


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is done.

    Attributes:
        num_pairs: Turns of attacks and quiet; one more goes before them, to warm up.
        num_attacks: In each turn.
        per_second: How many attacks are begun in a second.
        quiet_s: Without any.
    """

    model: LlamaSizes = DECODE_MODEL
    num_pairs: int = 9
    num_attacks: int = 100
    per_second: float = 8.0
    quiet_s: float = 6.0


FULL = Settings()
QUICK = Settings(model=TINY_MODEL, num_pairs=5, num_attacks=15, quiet_s=1.0)


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Attack a server and see what it does to others."""
    report = Report("hostile-clients")
    settings = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder:
        path = write_tool_model(Path(folder) / MODEL, settings.model)
        with (
            ImpatientServer(str(path)) as server,
            GoodClient(server.port) as client,
            Attackers(server.port, MODEL, SEED) as attackers,
        ):
            measure(report, settings, server, client, attackers)
    return report


def measure(
    report: Report,
    settings: Settings,
    server: ImpatientServer,
    client: "GoodClient",
    attackers: Attackers,
) -> None:
    """Fill the report."""
    before = answer_of(server)
    wrong: list[str] = []
    pairs: list[tuple[float, float]] = []
    resident: list[int] = []
    for turn in range(1 + settings.num_pairs):
        note(f"turn {turn + 1} of {1 + settings.num_pairs}")
        started = time.perf_counter()
        wrong += attackers.run(settings.num_attacks, settings.per_second)
        ended = time.perf_counter()
        client.await_tokens(2)  # what the last attacks left behind
        quiet = time.perf_counter()
        time.sleep(settings.quiet_s)
        pairs.append((client.gap(started, ended), client.gap(quiet, time.perf_counter())))
        if HAS_PROC:
            resident.append(resident_bytes(server.process.pid))
    for complaint in wrong:
        note(complaint)
    num_attacks = settings.num_attacks * len(pairs)
    num_right = num_attacks - len(wrong)
    report.add("attacks refused or cut as they should be", num_right, "", Bar(">=", num_attacks))
    for side, gaps in zip(("attacked", "quiet"), zip(*pairs[1:], strict=True), strict=True):
        report.add(f"token gap of a stream, {side}", statistics.median(gaps) * 1000, "ms")
    report_ratio(report, "token gap of a stream, attacked / quiet", pairs[1:], GAP_BAR)
    if resident:
        half, end = resident[(len(resident) - 1) // 2], resident[-1]
        report.add("memory of the coordinator at the end", end / MEGABYTE, "MB")
        report.add("its growth in the second half", end / half, "x", MEMORY_BAR)
        note("MB after each turn: " + " ".join(f"{size / MEGABYTE:.0f}" for size in resident))
    client.stop()
    wait_until(lambda: num_requests(server) == 0, "every request has ended")
    is_same = answer_of(server) == before
    report.add("the first question is answered as before", is_same, "", Bar(">=", 1))


def answer_of(server: ImpatientServer) -> str:
    """To a question that is always the same."""
    answer = httpx.post(f"{server.url}/v1/completions", json=QUESTION, timeout=60)
    return str(answer.json()["choices"][0]["text"])


def num_requests(server: ImpatientServer) -> int:
    """That the server has not finished."""
    return int(httpx.get(f"{server.url}/health", timeout=60).json()["num_requests"])


class GoodClient:
    """Streams one answer after another in a thread, and keeps when each token came."""

    def __init__(self, port: int) -> None:
        self._port = port
        # The times of each answer's tokens.
        self._answers: list[list[float]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def gap(self, started: float, ended: float) -> float:
        """Median of the seconds between two tokens, both of which came in this time."""
        gaps = [
            after - before
            for times in list(self._answers)
            for before, after in itertools.pairwise(times)
            if started <= before and after <= ended
        ]
        return statistics.median(gaps)

    def await_tokens(self, count: int) -> None:
        """Wait until so many more have come."""
        wanted = self._num_tokens() + count
        wait_until(lambda: self._num_tokens() >= wanted, "the stream goes on")

    def stop(self) -> None:
        """Ask no more."""
        self._is_over.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _num_tokens(self) -> int:
        return sum(map(len, list(self._answers)))

    def _run(self) -> None:
        body = {**QUESTION, "max_tokens": STREAM_TOKENS, "stream": True}
        while not self._is_over.is_set():
            times: list[float] = []
            self._answers.append(times)
            with socket.create_connection(("127.0.0.1", self._port)) as connection:
                connection.sendall(post(body))
                for line in connection.makefile("rb"):
                    if line.startswith(b"data: {"):
                        assert "error" not in json.loads(line[6:]), line
                        times.append(time.perf_counter())
                    elif line.startswith(b"data: [DONE]"):
                        break
