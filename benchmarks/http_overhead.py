"""What HTTP costs: 16 streams through the server against the same requests without it.

Both sides use one running cluster in this process, the server's event loop in a thread of it, as
`tbcluster serve` has them. The clients are one process of their own that does little more than read
sockets; its share of the cores counts against the server.
"""

import random
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.full_pipeline.settings import DECODE_MODEL, TINY_MODEL
from benchmarks.full_pipeline.sides import random_model
from benchmarks.full_pipeline.streams import Stream, plain_request, random_prompt
from benchmarks.harness import Bar, Report, interleaved_pairs, note, report_ratio
from benchmarks.http_clients import HttpClients
from tbcluster import Cluster
from tbcluster.cluster.models.models import Models
from tbcluster.server.options import ServerOptions
from tbcluster.server.serving import Server

BAR = Bar(">=", 0.97, "x")
NUM_STREAMS = 16
NUM_TOKENS = 16
NUM_PROMPT_TOKENS = 4
NUM_STARTS = 3
PAIRS_PER_START = 2
QUICK_PAIRS = 5

PARTS = {"streams": "16 streams of a 70M model"}


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Measure pairs on a few starts of the processes."""
    report = Report("http-overhead")
    sizes = TINY_MODEL if quick else DECODE_MODEL
    num_starts, num_pairs = (1, QUICK_PAIRS) if quick else (NUM_STARTS, PAIRS_PER_START)
    pairs: list[tuple[float, float]] = []
    with random_model(sizes) as path:
        for start in range(1, num_starts + 1):
            note(f"start {start} of {num_starts}")
            source = random.Random(start)
            prompts = [
                random_prompt(source, NUM_PROMPT_TOKENS, sizes.vocab_size)
                for _ in range(NUM_STREAMS)
            ]
            with Cluster(path, stages=2) as cluster, serving(cluster) as port, HttpClients() as far:
                pairs += interleaved_pairs(
                    lambda: far.run(port, cluster.model_name, prompts, NUM_TOKENS),  # noqa: B023
                    lambda: without_http(cluster, prompts),  # noqa: B023
                    num_pairs,
                )
    for side, rates in zip(("over HTTP", "without HTTP"), zip(*pairs, strict=True), strict=True):
        report.add(f"{NUM_STREAMS} streams {side}", statistics.median(rates), "tok/s")
    report_ratio(report, f"{NUM_STREAMS} streams over HTTP / without", pairs, BAR)
    return report


def without_http(cluster: Cluster, prompts: Sequence[Sequence[int]]) -> float:
    """Tokens per second of the engine alone, from the first request to the last token."""
    streams = [Stream() for _ in prompts]
    started = time.perf_counter()
    for prompt, stream in zip(prompts, streams, strict=True):
        cluster.submit(plain_request(cluster, prompt, NUM_TOKENS), stream)
    for stream in streams:
        stream.await_end()
    return len(prompts) * NUM_TOKENS / (time.perf_counter() - started)


@contextmanager
def serving(cluster: Cluster) -> Iterator[int]:
    """The server in a thread; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(Models.of(cluster), ServerOptions())
        server.open()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
