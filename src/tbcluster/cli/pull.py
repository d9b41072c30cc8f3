"""`tbcluster pull`: weights onto the disks of the nodes that will need them."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tbcluster.cli.fetch_bars import FetchBars, fetch_line, fetch_table
from tbcluster.cli.loading import console, say
from tbcluster.cli.options import (
    Context,
    KvBits,
    KvMemory,
    Memory,
    Model,
    PlanPath,
    Replicas,
    Stages,
    Streams,
)
from tbcluster.cli.plan_view import show_briefly
from tbcluster.cli.rack import only_errors, output
from tbcluster.cli.state import own_folder
from tbcluster.cluster.plan_file import read_plan
from tbcluster.cluster.plan_request import PlanRequest, plan_request
from tbcluster.errors import PortInUseError, RackError
from tbcluster.weights.amounts import decimal

if TYPE_CHECKING:
    # They take their time to import, which commands that need them not should not wait for.
    from tbcluster.cluster.planning import PlannedModel
    from tbcluster.cluster.rack.fetching import FetchStatus

# A command that looks at the rack holds the control port for some seconds.
PORT_PATIENCE_S = 5.0


def pull(
    model: Model = None,
    context: Context = None,
    streams: Streams = None,
    kv_bits: KvBits = None,
    kv_memory: KvMemory = None,
    stages: Stages = None,
    replicas: Replicas = None,
    memory: Memory = None,
    plan: PlanPath = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Fetch all of the model onto every node.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read and hash what is there already, too.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Fetch all of the model onto this machine alone.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch a model's weights ahead of serving it.

    Each node of the rack gets what its layers need, and one machine alone all of it. Nodes copy
    from each other what one of them has. What was fetched before is not fetched again.
    """
    request = plan_request(
        model,
        read_plan(plan) if plan is not None else None,
        context=context,
        streams=streams,
        kv_bits=kv_bits,
        kv_memory_bytes=kv_memory,
        stages=stages,
        replicas=replicas,
    )
    if request.model is None:
        say("the bundled model comes with tbcluster: there is nothing to fetch")
    elif local or own_folder().membership() is None:
        _pull_here(request.model, verifies=verify, as_json=as_json)
    else:
        statuses, seconds = _pull_onto_rack(
            request, request.model, memory, everything=everything, verifies=verify
        )
        _report(request.model, statuses, seconds, as_json=as_json)


@contextmanager
def _resumable() -> Iterator[None]:
    """Ctrl-C loses nothing, which is worth knowing."""
    try:
        yield
    except KeyboardInterrupt:
        if console.is_terminal:
            console.print()  # Below the bar of Hugging Face's client.
        say("interrupted: what was fetched is kept, and the same command goes on from there")
        raise


def _pull_here(model: str, *, verifies: bool, as_json: bool) -> None:
    from tbcluster.cluster.pulling import fetch_anew, pull_here, verify_here

    started = time.monotonic()
    with _resumable():
        folder = pull_here(model)
        num_verified, num_anew = 0, 0
        if verifies:
            with console.status("hashing ...") as status:
                verified = verify_here(model, lambda file: status.update(f"hashing {file} ..."))
            num_verified, num_anew = verified.num_bytes, len(verified.bad)
            if verified.bad:
                names = ", ".join(file.path for file in verified.bad)
                say(f"not what the hub has, and fetched anew: {names}")
                fetch_anew(model, verified)
    seconds = time.monotonic() - started
    if as_json:
        facts = {
            "model": model,
            "folder": str(folder),
            "verified_bytes": num_verified,
            "files_fetched_anew": num_anew,
            "seconds": seconds,
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    is_folder = Path(os.path.expanduser(model)) == folder
    say(f"{folder} is used where it is" if is_folder else f"all of {model} is in {folder}")
    if verifies:
        known = f"verified: {decimal(num_verified)} of weights have the hub's SHA-256"
        say(known if num_verified else "no hashes are known of it: nothing was verified")


def _pull_onto_rack(
    request: PlanRequest,
    model: str,
    memory_bytes: int | None,
    *,
    everything: bool,
    verifies: bool,
) -> "tuple[Sequence[FetchStatus], float]":
    """How the nodes ended, and the seconds from the first bytes to the last."""
    from tbcluster.cluster.pulling import pull_everywhere, pull_planned
    from tbcluster.cluster.rack.rack import Rack

    last: list[FetchStatus] = []
    times: list[float] = []
    try:
        with (
            _resumable(),
            only_errors(),
            Rack(
                own_folder(),
                memory_bytes=memory_bytes,
                port_patience_s=PORT_PATIENCE_S,
                on_note=say,
            ) as rack,
            FetchBars() as bars,
        ):

            def show(statuses: "Sequence[FetchStatus]") -> None:
                last[:] = statuses
                times.append(time.monotonic())
                bars.show(statuses)

            if everything:
                pull_everywhere(rack, model, show, verifies=verifies)
            else:
                pull_planned(rack, request, _show_plan, show, verifies=verifies)
    except PortInUseError as error:
        raise RackError(
            f"a coordinator runs here already, and two would have the nodes do different things: "
            f"end it to pull {model}, or serve {model} with it, which fetches what is needed "
            f"({error})"
        ) from error
    return last, times[-1] - times[0] if times else 0.0


def _show_plan(planned: "PlannedModel") -> None:
    for note in planned.notes:
        say(note)
    show_briefly(console, planned.plan)


def _report(
    model: str, statuses: "Sequence[FetchStatus]", seconds: float, *, as_json: bool
) -> None:
    if as_json:
        facts = {"model": model, "nodes": [asdict(one) for one in statuses], "seconds": seconds}
        typer.echo(json.dumps(facts, indent=2))
        return
    screen = output()
    screen.print(fetch_table(statuses))
    screen.print()
    screen.print(fetch_line(statuses, seconds))
