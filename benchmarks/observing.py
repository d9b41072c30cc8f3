"""What it costs to be watched: 16 streams over HTTP, as `tbcluster serve` has them.

`tabs`: the dashboard's view read by five readers, against nobody looking. They are a process of
their own that only reads sockets, since a browser sits on another machine. `browser`: five real
tabs of the page in a Chromium on this machine, whose drawing takes this machine's cores: to inform.
`noting`: metrics, step log, live view and energy as they always run, and Prometheus asking each
second, against a server that notes nothing.
"""

import random
import shutil
import socket
import statistics
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn
from anyio import to_thread

from benchmarks.full_pipeline.settings import DECODE_MODEL, TINY_MODEL
from benchmarks.full_pipeline.sides import random_model
from benchmarks.full_pipeline.streams import random_prompt
from benchmarks.harness import Bar, Report, interleaved_pairs, note, report_ratio
from benchmarks.http_clients import HttpClients
from benchmarks.live_readers import LiveReaders
from tbcluster import Cluster
from tbcluster.cluster.energy.book import Energy
from tbcluster.cluster.models.models import Models
from tbcluster.core import Output
from tbcluster.server.metrics import Metrics, RequestTimer
from tbcluster.server.options import ServerOptions
from tbcluster.server.serving import NUM_THREADS, Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PARTS = {
    "tabs": "five dashboards open, against none",
    "browser": "the same in a Chromium on this machine, if it has one",
    "noting": "metrics and tracing on, against off",
}
TABS_BAR = Bar(">=", 0.98, "x")
NOTING_BAR = Bar(">=", 0.98, "x")
NUM_TABS = 5
NUM_STREAMS = 16
NUM_PROMPT_TOKENS = 4
# A side takes several seconds, so that what comes once a second comes several times.
NUM_TOKENS, NUM_PAIRS = 64, 9
QUICK_TOKENS, QUICK_PAIRS = 8, 5
SCRAPE_EVERY_S = 1.0


@dataclass(frozen=True)
class Bench:
    """A cluster whose streams are measured over HTTP.

    Attributes:
        num_tokens: Of each stream.
    """

    cluster: Cluster
    prompts: Sequence[Sequence[int]]
    clients: HttpClients
    num_tokens: int
    num_pairs: int

    def rate(self, port: int) -> float:
        """Tokens per second of all streams together."""
        return self.clients.run(port, self.cluster.model_name, self.prompts, self.num_tokens)


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Measure pairs, part by part, each on a start of its own."""
    report = Report("observing")
    sizes = TINY_MODEL if quick else DECODE_MODEL
    num_tokens, num_pairs = (QUICK_TOKENS, QUICK_PAIRS) if quick else (NUM_TOKENS, NUM_PAIRS)
    source = random.Random(1)
    prompts = [
        random_prompt(source, NUM_PROMPT_TOKENS, sizes.vocab_size) for _ in range(NUM_STREAMS)
    ]
    with random_model(sizes) as path:
        for part, measure in MEASURES.items():
            if not only or part in only:
                note(f"{PARTS[part]}: {num_pairs} pairs")
                with Cluster(path, stages=2) as cluster, HttpClients() as clients:
                    measure(report, Bench(cluster, prompts, clients, num_tokens, num_pairs))
    return report


def measure_tabs(report: Report, bench: Bench) -> None:
    """Somebody reads the view, or nobody does."""
    with ExitStack() as stack:
        port = stack.enter_context(serving(Server(Models.of(bench.cluster), ServerOptions())))
        readers = stack.enter_context(LiveReaders())

        def watched() -> float:
            with readers.reading(port, NUM_TABS):
                return bench.rate(port)

        pairs = interleaved_pairs(watched, lambda: bench.rate(port), bench.num_pairs)
    _tell(report, f"{NUM_TABS} dashboards open", "none open", pairs, TABS_BAR)


def measure_browser(report: Report, bench: Bench) -> None:
    """Somebody has the page open in five tabs, or nobody does."""
    with ExitStack() as stack:
        port = stack.enter_context(serving(Server(Models.of(bench.cluster), ServerOptions())))
        browser = stack.enter_context(chromium())
        if browser is None:
            note("no Chromium, or no playwright, on this machine: left out")
            return

        def watched() -> float:
            with browser.new_context() as context:
                for _ in range(NUM_TABS):
                    context.new_page().goto(f"http://127.0.0.1:{port}/")
                return bench.rate(port)

        pairs = interleaved_pairs(watched, lambda: bench.rate(port), bench.num_pairs)
    _tell(report, f"{NUM_TABS} tabs of a Chromium on the same cores", "no tab", pairs, None)


def measure_noting(report: Report, bench: Bench) -> None:
    """All that is always noted, or nothing: each side with a server of its own, so that the other
    one's does not look meanwhile."""
    logs = [replica.engine._loop.log for replica in bench.cluster._running._replicas]

    def noting() -> float:
        server = Server(Models.of(bench.cluster), ServerOptions())
        with serving(server) as port, scraping(port):
            return bench.rate(port)

    def without() -> float:
        for log in logs:
            log.is_on = False
        try:
            with serving(quiet_server(bench.cluster)) as port:
                return bench.rate(port)
        finally:
            for log in logs:
                log.is_on = True

    pairs = interleaved_pairs(noting, without, bench.num_pairs)
    _tell(report, "metrics and tracing", "neither", pairs, NOTING_BAR)


MEASURES: dict[str, Callable[[Report, Bench], None]] = {
    "tabs": measure_tabs,
    "browser": measure_browser,
    "noting": measure_noting,
}


@contextmanager
def chromium() -> "Iterator[Browser | None]":
    """One without a window; None where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        yield None
        return
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        yield None
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser
        finally:
            browser.close()


def _tell(
    report: Report, with_it: str, without: str, pairs: list[tuple[float, float]], bar: Bar | None
) -> None:
    for side, rates in zip((with_it, without), zip(*pairs, strict=True), strict=True):
        report.add(f"{NUM_STREAMS} streams, {side}", statistics.median(rates), "tok/s")
    report_ratio(report, f"{with_it} / {without}", pairs, bar)


class QuietTimer(RequestTimer):
    """Times nothing."""

    def __init__(self) -> None:
        pass

    @property
    def elapsed_s(self) -> float:
        return 0.0

    def output(self, output: Output, choice: int = 0) -> None:
        pass

    def end(self, outcome: str) -> Energy | None:
        return None


class QuietMetrics(Metrics):
    """Counts nothing."""

    def begin(
        self,
        endpoint: str,
        model: str,
        arrived_at: float | None = None,
        *,
        key: str | None = None,
    ) -> RequestTimer:
        return QuietTimer()


class QuietServer(Server):
    """Looks at nothing; all else is as it is elsewhere."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        to_thread.current_default_thread_limiter().total_tokens = NUM_THREADS
        await uvicorn.Server.startup(self, sockets)


def quiet_server(cluster: Cluster) -> Server:
    """A server that notes nothing."""
    models = Models.of(cluster)
    server = QuietServer(models, ServerOptions())
    server._metrics = QuietMetrics(models.clusters)
    return server


@contextmanager
def serving(server: Server) -> Iterator[int]:
    """The server in a thread; gives its port. Its end is not the cluster's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.open()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server._is_open = False  # the cluster answers on
            server.should_exit = True
            thread.join()


@contextmanager
def scraping(port: int) -> Iterator[None]:
    """Prometheus, asking each second."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_EVERY_S):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
