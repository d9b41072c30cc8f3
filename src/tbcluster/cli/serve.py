"""`tbcluster serve`: the endpoints that clients connect to."""

import ipaddress
import json
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from tbcluster.cli.entry import INTERRUPTED
from tbcluster.cli.fetch_bars import FetchBars
from tbcluster.cli.loading import StageBars, console, own_rack, say, stage_line
from tbcluster.cli.options import (
    Context,
    HeldModels,
    IdleUnload,
    Keys,
    KvBits,
    KvMemory,
    LoadOnUse,
    ManyModels,
    MaxModels,
    Memory,
    ModelFolders,
    PlanPath,
    PrefixCache,
    PrefixDisk,
    PrefixFolder,
    Replicas,
    Stages,
    Streams,
    byte_count,
    key_file_path,
)
from tbcluster.cli.state import own_folder
from tbcluster.cluster.kv_options import DEFAULT_DISK_BYTES, KvOptions
from tbcluster.cluster.layout import layout_of, parse_place
from tbcluster.cluster.plan_file import read_plan
from tbcluster.cluster.plan_request import lasting_name, plan_request
from tbcluster.errors import ListenError, RackError
from tbcluster.hardware.allocator import share_arenas
from tbcluster.server.keys import KeyFile, KeyRing

if TYPE_CHECKING:
    from tbcluster.cluster.cluster import Cluster
    from tbcluster.cluster.models.models import Models
    from tbcluster.server.serving import Server

DEFAULT_PORT = 8080
DEFAULT_BODY_BYTES = 32 << 20
MIN_BODY_BYTES = 1024
# The exit status of a program that SIGTERM ended, as shells count it.
TERMINATED = 128 + signal.SIGTERM


def serve(
    model: ManyModels = None,
    stages: Stages = None,
    place: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE=FIRST-LAST",
            help="Run these layers on this node of the rack, such as mini2=16-31; once for each "
            "stage. As `tbcluster plan` shows if not given.",
            show_default=False,
        ),
    ] = None,
    plan: PlanPath = None,
    context: Context = None,
    streams: Streams = None,
    replicas: Replicas = None,
    models: ModelFolders = None,
    models_held: HeldModels = False,
    load_on_use: LoadOnUse = False,
    models_max: MaxModels = None,
    idle_unload: IdleUnload = None,
    local: Annotated[
        bool, typer.Option("--local", help="Use this machine alone, though it belongs to a rack.")
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = DEFAULT_PORT,
    require_keys: Annotated[
        bool,
        typer.Option(
            "--require-keys",
            help="Ask for an API key on this machine too; other machines always need one.",
        ),
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everyone in who can connect, without a key.")
    ] = False,
    keys: Keys = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Let scripts of web pages at this address, such as http://localhost:3000, use "
            "the server; may be repeated; * for all.",
            show_default=False,
        ),
    ] = None,
    max_body: Annotated[
        int,
        typer.Option(
            parser=byte_count,
            metavar="SIZE",
            help="Longest body of a request.",
            show_default="32MiB",
        ),
    ] = DEFAULT_BODY_BYTES,
    drain: Annotated[
        float,
        typer.Option(min=0, help="Seconds that running requests may take to finish after Ctrl-C."),
    ] = 30.0,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log a line for each request; never what it says.")
    ] = False,
    memory: Memory = None,
    kv_memory: KvMemory = None,
    kv_bits: KvBits = None,
    prefix_cache: PrefixCache = True,
    prefix_folder: PrefixFolder = None,
    prefix_disk: PrefixDisk = DEFAULT_DISK_BYTES,
) -> None:
    """Serve models over HTTP until Ctrl-C."""
    share_arenas()
    # The web framework takes half a second to import.
    from tbcluster.cli.served import ClusterMaker, catalogue_of, check_hub, check_nodes
    from tbcluster.cluster.models.models import Models
    from tbcluster.cluster.models.residency import Rules
    from tbcluster.server import serving
    from tbcluster.server.options import ServerOptions

    check_origins(cors_origin or ())
    if max_body < MIN_BODY_BYTES:
        raise typer.BadParameter(
            f"{max_body} bytes hold no request: allow {MIN_BODY_BYTES} or more",
            param_hint="--max-body",
        )
    if place and (local or stages is not None or replicas is not None or plan is not None):
        raise typer.BadParameter(
            "it says which nodes and how many stages by itself: leave out --local, --stages, "
            "--replicas and --plan",
            param_hint="--place",
        )
    if idle_unload is not None and not idle_unload > 0:
        raise typer.BadParameter(
            "it must be more than 0 minutes; leave it out for never", param_hint="--idle-unload"
        )
    saved = read_plan(plan) if plan is not None else None
    # What is there alone is served as it is; otherwise the bundled model is the first.
    unnamed: list[str | None] = [] if models or models_held else [None]
    given: list[str | None] = [*(model or ())]
    given = given or ([saved.model] if saved is not None else unnamed)
    placed = [parse_place(text) for text in place or ()]
    if placed and not given:
        raise typer.BadParameter(
            "it says who runs what of one model: name that one, too", param_hint="--place"
        )
    rack = own_rack(local=local, memory_bytes=memory)
    catalogue = catalogue_of(
        given, models or (), holds_too=models_held, is_on_rack=rack is not None
    )
    first = catalogue.given[0] if catalogue.given else None
    wished = partial(plan_request, context=context, streams=streams, kv_bits=kv_bits, stages=stages)
    source = None if first is None or first.source is None else str(first.source)
    if saved is not None and given and lasting_name(given[0]) == saved.model:
        source = given[0]  # which the plan file calls so, wherever it was found
    request = wished(source, saved, replicas=replicas)
    kv = KvOptions(
        kv_memory,
        request.kv_bits,
        prefix_cache,
        prefix_folder,
        prefix_disk,
        keeps_to_promise=not catalogue.is_single,
    )
    ring = key_ring(host, keys, require_keys=require_keys, insecure=insecure)
    options = ServerOptions(
        keys=ring,
        is_local=is_loopback(host) and not insecure,
        cors_origins=tuple(cors_origin or ()),
        max_body_bytes=max_body,
        drain_s=drain,
        logs_access=access_log,
    )
    if access_log:
        logging.getLogger("tbcluster.access").setLevel(logging.INFO)
    check_hub(catalogue.given[1:])
    if placed and rack is None:
        raise RackError(
            "--place names nodes of a rack, and there is no cluster in "
            f"{own_folder().path}: make one with `tbcluster init`, or leave --place out"
        )
    if rack is not None:
        check_nodes([*request.by_hand, *layout_of(placed)], own_folder())
    bars, fetch_bars = StageBars(), FetchBars()
    served = Models(
        catalogue,
        ClusterMaker(
            first=None if first is None else first.name,
            request=request,
            others=wished(None, replicas=replicas),
            kv=kv,
            rack=rack,
            placed=placed,
            stage_bars=bars,
            fetch_bars=fetch_bars,
            memory_bytes=memory,
            is_single=catalogue.is_single,
        ),
        Rules(load_on_use, models_max, None if idle_unload is None else 60 * idle_unload),
        drain_s=drain,
        first_words="opening the model" if rack is None else "bringing up the rack",
        on_note=say,
    )
    server = serving.Server(served, options, on_note=say)
    end_on_signals(server)
    with (
        cutting_off(served),
        serving.listen(host, port) as listener,
        server.answering(listener),
    ):
        if ring is None and not is_loopback(host):
            console.print(
                f"[yellow]{host} can be reached from other machines and the endpoint asks for no "
                "key: anyone who can connect can use it[/yellow]"
            )
        with rack or nullcontext(), fetch_bars, served:
            if rack is not None:
                rack.describe(served.serving)
            with bars:
                clusters = [served.load_now(loadable.name) for loadable in catalogue.given[:1]]
            server.open()
            announce(
                clusters,
                listener,
                asks_keys=ring is not None,
                has_others=not catalogue.is_single,
                loads_on_use=load_on_use,
            )
            # What is said of others comes after that.
            served.start()
            for loadable in catalogue.given[1:]:
                served.ask(loadable.name)
            server.wait()


@contextmanager
def cutting_off(served: "Models") -> Iterator[None]:
    """A download that another thread waits for is not ended by Ctrl-C, and Python waits for threads
    before it exits: a server that was told to end does not."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as ending:
        if served.is_stuck:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED if isinstance(ending, KeyboardInterrupt) else TERMINATED)
        raise


def end_on_signals(server: "Server") -> None:
    """Let Ctrl-C and SIGTERM end what the main thread does, and the server."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        # Libraries may swallow what is raised in them; the server does not forget.
        server.handle_exit(number, frame)
        if number == signal.SIGTERM:
            sys.exit(TERMINATED)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def key_ring(host: str, path: Path | None, *, require_keys: bool, insecure: bool) -> KeyRing | None:
    """The keys to ask for, or None where none is needed: only this machine can connect, or
    everyone was let in by name.

    Raises:
        ListenError: Keys are needed and there are none, or --insecure contradicts them.
        KeyFileError: The file cannot be used.
    """
    if insecure and require_keys:
        raise ListenError("--insecure and --require-keys contradict each other: leave one out")
    if insecure or (is_loopback(host) and not require_keys):
        return None
    file = KeyFile(key_file_path(path))
    ring = KeyRing(file)
    if not ring.keys:
        why = "--require-keys" if is_loopback(host) else f"{host} can be reached from elsewhere"
        raise ListenError(
            f"{why}, and there is no API key in {file.path}: make one with "
            "`tbcluster keys add NAME`, or let everyone in with --insecure"
        )
    return ring


def check_origins(origins: Sequence[str]) -> None:
    """Raises: BadParameter for what no browser sends as an origin."""
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
            raise typer.BadParameter(
                f"{origin!r} is no origin: give its scheme, host and port, such as "
                "http://localhost:3000",
                param_hint="--cors-origin",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def kv_line(cluster: "Cluster") -> str:
    """How much the KV caches may take, and what that is good for."""
    budgets = [f"{size / 2**20:,.1f}" for size in cluster.statistics().kv_budget_bytes]
    longest = cluster.longest_sequence
    upto = f"; one sequence of up to {longest:,} tokens" if longest is not None else ""
    return f"KV caches may take {', '.join(budgets)} MiB, stage by stage{upto}"


def announce(
    clusters: "Sequence[Cluster]",
    listener: socket.socket,
    *,
    asks_keys: bool,
    has_others: bool,
    loads_on_use: bool = False,
) -> None:
    """Say what runs where, and how to try it."""
    host, port = listener.getsockname()[:2]
    is_everywhere = ipaddress.ip_address(host).is_unspecified
    host = "127.0.0.1" if is_everywhere else host
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    for cluster in clusters:
        announce_model(cluster, url, asks_keys=asks_keys)
    if not clusters and loads_on_use:
        console.print(
            f"\nNo model is loaded: a request to [bold]{url}[/bold] loads the one that it names "
            f"(`tbcluster models --url {url}` lists them), or `tbcluster load NAME --url {url}`",
            soft_wrap=True,
        )
    elif not clusters:
        console.print(
            f"\nNo model is loaded. They are served at [bold]{url}[/bold] once they are: "
            f"`tbcluster load NAME --url {url}`",
            soft_wrap=True,
        )
    elif has_others:
        console.print(f"\nOther models: `tbcluster models --url {url}` lists them", soft_wrap=True)
    if is_everywhere:
        console.print(f"\nOther machines reach it at http://{socket.gethostname()}:{port}")
    console.print("\nCtrl-C ends it.")


def announce_model(cluster: "Cluster", url: str, *, asks_keys: bool) -> None:
    """Say what runs where for one model, and how to ask it."""
    body = {
        "model": cluster.model_name,
        "stream": True,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    say(stage_line(cluster))
    console.print(kv_line(cluster))
    console.print(
        f"\n[bold]{cluster.model_name}[/bold] is served at [bold]{url}[/bold] (OpenAI's clients: "
        f"{url}/v1; page: {url}/docs). Try:\n",
        soft_wrap=True,
    )
    # A long line must stay one line to be copied.
    key = "-H 'Authorization: Bearer YOUR_KEY' " if asks_keys else ""
    console.print(
        f"curl -N {url}/v1/chat/completions {key}-H 'Content-Type: application/json' "
        f"-d '{json.dumps(body)}'",
        soft_wrap=True,
        markup=False,
    )
