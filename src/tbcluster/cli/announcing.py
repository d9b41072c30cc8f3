"""What `tbcluster serve` says once it serves."""

import ipaddress
import json
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tbcluster.cli.loading import console, say, stage_line

if TYPE_CHECKING:
    from tbcluster.cluster.cluster import Cluster


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
        f"\n[bold]{cluster.model_name}[/bold] is served at [bold]{url}[/bold] (in a browser: the "
        f"dashboard; OpenAI's clients: {url}/v1; reference: {url}/docs). Try:\n",
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
