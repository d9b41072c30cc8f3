"""`tbcluster serve`: the endpoints that clients connect to."""

import logging
from contextlib import nullcontext
from functools import partial
from typing import Annotated

import typer

from tbcluster.cli.announcing import announce
from tbcluster.cli.ending import cutting_off, end_on_signals, forgetting
from tbcluster.cli.fetch_bars import FetchBars
from tbcluster.cli.json_log import log_as_json, note, note_event
from tbcluster.cli.loading import StageBars, console, own_rack, say
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
    QueueTimeout,
    Replicas,
    RequestTimeout,
    Stages,
    Streams,
    byte_count,
)
from tbcluster.cli.progress import saying
from tbcluster.cli.serve_options import check_options, is_loopback, key_ring
from tbcluster.cli.state import own_folder
from tbcluster.cluster.desired import DesiredModels
from tbcluster.cluster.kv_options import DEFAULT_DISK_BYTES, KvOptions
from tbcluster.cluster.layout import layout_of, parse_place
from tbcluster.cluster.plan_file import read_plan
from tbcluster.cluster.plan_request import lasting_name, plan_request
from tbcluster.errors import RackError
from tbcluster.hardware.allocator import share_arenas

DEFAULT_PORT = 8080
DEFAULT_BODY_BYTES = 32 << 20


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
    request_timeout: RequestTimeout = 0,
    queue_timeout: QueueTimeout = 600,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Log a line for each request; never what it says.")
    ] = False,
    log_json: Annotated[
        bool,
        typer.Option(
            "--log-json",
            help="Write everything to standard error as JSON, an event a line: requests that end, "
            "nodes that come and go, warnings. Never what requests say.",
        ),
    ] = False,
    log_prompts: Annotated[
        bool,
        typer.Option(
            "--log-prompts", help="With --log-json: prompts and answers of requests as well."
        ),
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
    from tbcluster.server.live.events import EventLog
    from tbcluster.server.options import ServerOptions

    if log_prompts and not log_json:
        raise typer.BadParameter("it needs --log-json", param_hint="--log-prompts")
    events = EventLog(note_event if log_json else lambda _: None)
    print_note = log_as_json() if log_json else say

    def noted(line: str) -> None:
        print_note(line)
        events.add(line)

    check_options(
        max_body=max_body,
        idle_unload=idle_unload,
        cors_origins=cors_origin or (),
        place=place or (),
        excluded_by_place=local or any(option is not None for option in (stages, replicas, plan)),
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
    rack = own_rack(local=local, memory_bytes=memory, on_note=noted)
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
        request_timeout_s=request_timeout,
        queue_timeout_s=queue_timeout,
        logs_access=access_log,
        logs_text=log_prompts,
    )
    if access_log:
        logging.getLogger("tbcluster.access").setLevel(logging.INFO)
    desired = None
    if rack is not None:
        names = [loadable.name for loadable in catalogue.given]
        desired = DesiredModels(own_folder().path, names, on_note=noted)
    known = desired.names if desired is not None else ()
    check_hub([loadable for loadable in catalogue.given[1:] if loadable.name not in known])
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
        on_note=noted,
        desired=desired,
    )
    server = serving.Server(
        served,
        options,
        on_note=noted,
        rack=None if rack is None else rack.view,
        events=events,
    )
    restart = end_on_signals(server)
    with (
        restart.beginning_anew(),
        cutting_off(served, restart),
        serving.listen(host, port) as listener,
        server.answering(listener),
    ):
        if ring is None and not is_loopback(host):
            console.print(
                f"[yellow]{host} can be reached from other machines and the endpoint asks for no "
                "key: anyone who can connect can use it[/yellow]"
            )
        with (
            rack or nullcontext(),
            forgetting(desired, restart),
            fetch_bars,
            served,
            restart.keeping_workers(rack, desired),
        ):
            if rack is not None:
                rack.describe(served.serving)
                rack.may_drain = lambda node: served.may_lose(node, rack.usable())
            wanted = served.wanted()
            at_once = [name for name in wanted[:1] if first is not None and name == first.name]
            with bars, saying(lambda: served.status().doing, console):
                clusters = [served.load_now(name) for name in at_once]
            server.open()
            announce(
                clusters,
                listener,
                asks_keys=ring is not None,
                has_others=not catalogue.is_single,
                loads_on_use=load_on_use,
            )
            if log_json:
                address = listener.getsockname()
                note("serving", "serving", host=address[0], port=address[1])
            # What is said of others comes after that.
            served.start()
            for name in wanted[len(at_once) :]:
                served.ask(name)
            restart.wait(server)
