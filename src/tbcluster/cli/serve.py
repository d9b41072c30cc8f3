"""`tbcluster serve`: the OpenAI-compatible endpoint."""

import ipaddress
import json
import signal
import socket
import sys
from typing import Annotated

import typer

from tbcluster.cli.loading import console, running_cluster, stage_table
from tbcluster.cli.options import (
    KvBits,
    KvMemory,
    Model,
    PrefixCache,
    PrefixDisk,
    PrefixFolder,
    Stages,
)
from tbcluster.cluster.cluster import Cluster
from tbcluster.cluster.kv_options import DEFAULT_DISK_BYTES, KvOptions

DEFAULT_PORT = 8080
# The exit status of a program that SIGTERM ended, as shells count it.
TERMINATED = 128 + signal.SIGTERM


def serve(
    model: Model = None,
    stages: Stages = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = DEFAULT_PORT,
    kv_memory: KvMemory = None,
    kv_bits: KvBits = None,
    prefix_cache: PrefixCache = True,
    prefix_folder: PrefixFolder = None,
    prefix_disk: PrefixDisk = DEFAULT_DISK_BYTES,
) -> None:
    """Serve a model over HTTP until Ctrl-C."""
    from tbcluster.server import app  # the web framework takes half a second to import

    kv = KvOptions(kv_memory, kv_bits, prefix_cache, prefix_folder, prefix_disk)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    with app.listen(host, port) as listener:
        if not is_loopback(host):
            console.print(
                f"[yellow]{host} can be reached from other machines and the endpoint asks for no "
                "key: anyone who can connect can use it[/yellow]"
            )
        with running_cluster(model, stages, kv) as cluster:
            announce(cluster, listener)
            app.run(cluster, listener)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def kv_line(cluster: Cluster) -> str:
    """How much the KV caches may take, and what that is good for."""
    budgets = [f"{size / 2**20:,.1f}" for size in cluster.statistics().kv_budget_bytes]
    longest = cluster.longest_sequence
    upto = f"; one sequence of up to {longest:,} tokens" if longest is not None else ""
    return f"KV caches may take {', '.join(budgets)} MiB, stage by stage{upto}"


def announce(cluster: Cluster, listener: socket.socket) -> None:
    """Say what runs where, and how to try it."""
    host, port = listener.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    body = {
        "model": cluster.model_name,
        "stream": True,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    console.print(stage_table(cluster))
    console.print(kv_line(cluster))
    console.print(f"\n[bold]{cluster.model_name}[/bold] is served at [bold]{url}/v1[/bold]. Try:\n")
    # A long line must stay one line to be copied.
    console.print(
        f"curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' "
        f"-d '{json.dumps(body)}'",
        soft_wrap=True,
        markup=False,
    )
    console.print("\nCtrl-C ends it.")
