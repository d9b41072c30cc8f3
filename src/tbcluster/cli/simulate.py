"""`tbcluster simulate`: what a rack would do with a workload, before there is a rack."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tbcluster.cli.loading import console, say
from tbcluster.cli.options import Bits, Context, KvBits, KvMemory, Model, Replicas, Stages, Streams
from tbcluster.cli.plan import planned_model
from tbcluster.cli.progress import CountBar, busy
from tbcluster.cli.rack import output, plain
from tbcluster.cli.simulate_view import comparison, planned_line, show_result, sweep_table
from tbcluster.cluster.plan_request import PlanRequest, plan_request
from tbcluster.errors import DoesNotFitError, SimulationError
from tbcluster.simulator.failures import Failure, parse_failure
from tbcluster.simulator.workload import (
    MAX_REQUESTS,
    Lengths,
    Workload,
    closed_loop,
    open_loop,
    parse_lengths,
    read_trace,
)

if TYPE_CHECKING:
    # MLX takes its time to import, which commands that need it not should not wait for.
    from tbcluster.simulator.planned import Simulated

DEFAULT_CLIENTS, MAX_CLIENTS = 4, 4096
# Unless told otherwise: enough requests that the beginning and the end count for little.
REQUESTS_PER_CLIENT, MIN_REQUESTS = 6, 24
SHARED_HELP = "So many of a prompt's first tokens are the same in all prompts (a system prompt)."


def simulate(
    model: Model = None,
    rack: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="The rack, which need not be there (see configs/); this one if left out.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.toml",
            help="Another rack, to compare with; may be repeated.",
            show_default=False,
        ),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="This machine alone.")] = False,
    clients: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_CLIENTS,
            help="Clients, each of which asks again when its answer has ended (4).",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=1e6,
            metavar="PER_SECOND",
            help="Instead of clients: so many requests a second on average, at random times.",
            show_default=False,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            help="Instead of both: a recorded workload, lines of "
            '{"arrival_s": 0.5, "prompt_tokens": 512, "output_tokens": 128}.',
            show_default=False,
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_REQUESTS,
            help=f"How many requests ({REQUESTS_PER_CLIENT} for each client, and {MIN_REQUESTS} at "
            "least).",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        Lengths,
        typer.Option(parser=parse_lengths, metavar="TOKENS", help="Of a prompt: 512, or 128-2048."),
    ] = "512",  # type: ignore[assignment]  # the parser sees it
    answer: Annotated[
        Lengths, typer.Option(parser=parse_lengths, metavar="TOKENS", help="Of an answer.")
    ] = "128",  # type: ignore[assignment]  # as above
    shared: Annotated[int, typer.Option(min=0, metavar="TOKENS", help=SHARED_HELP)] = 0,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE@SECONDS[-SECONDS]",
            help="Lose this node then, and have it back later; may be repeated.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1e9,
            help="End after so long on the simulated clock (when all is answered).",
            show_default=False,
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="1,2,4,...",
            help="Simulate each of these numbers of clients, on a plan for the largest.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal results.")] = 0,
    context: Context = None,
    streams: Streams = None,
    bits: Bits = None,
    kv_bits: KvBits = None,
    kv_memory: KvMemory = None,
    stages: Stages = None,
    replicas: Replicas = None,
    chart: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.svg",
            help="Draw what the stages did, or with --sweep throughput against clients; .png, too.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Simulate a workload on a rack: tokens a second, time to the first token, idle stages, watts.

    The planner and the scheduler are the real ones, on a virtual clock; nothing is loaded.
    """
    if chart is not None:
        check_chart(chart)
    numbers = _sweep(sweep) if sweep is not None else None
    if sum(given is not None for given in (clients, rate, trace, sweep)) > 1:
        raise typer.BadParameter("give one of --clients, --rate, --trace and --sweep")
    if trace is not None and (requests is not None or shared):
        raise typer.BadParameter(
            "the trace says what is asked: leave out --requests and --shared", param_hint="--trace"
        )
    at_most = max(numbers) if numbers else clients
    request = plan_request(
        model,
        context=context or _context_for(prompt, answer, trace),
        streams=streams or at_most,
        kv_bits=kv_bits,
        kv_memory_bytes=kv_memory,
        stages=stages,
        replicas=replicas,
        bits=bits,
    )
    if rack is not None and local:
        raise typer.BadParameter(
            "it says which machines there are: leave out --local", param_hint="--rack"
        )
    if compare and rack is None:
        raise typer.BadParameter("give --rack, the first rack, too", param_hint="--compare")
    if trace is None and shared > prompt.least:
        raise typer.BadParameter(
            f"{shared:,} tokens are more than a prompt of {prompt.least:,} has",
            param_hint="--shared",
        )

    def drawn(number: int) -> Workload:
        count = requests or max(MIN_REQUESTS, REQUESTS_PER_CLIENT * number)
        if trace is not None:
            return read_trace(trace)
        if rate is not None:
            return open_loop(rate, count, prompt, answer, shared, seed)
        return closed_loop(number, count, prompt, answer, shared, seed)

    failures = tuple(parse_failure(text) for text in fail or ())
    workloads = [drawn(number) for number in numbers or [clients or DEFAULT_CLIENTS]]
    found = []
    for file in (rack, *(compare or ())):
        try:
            found.append(_run(request, file, workloads, failures, local=local, most_s=seconds))
        except DoesNotFitError as error:
            if not compare:
                raise
            say(f"{_name(file)}: {error.message}")
    if not found:
        raise SimulationError(f"{model or 'the model'} fits none of these racks")
    _tell(found, numbers, is_comparison=bool(compare), as_json=as_json)
    if chart is not None:
        _draw(chart, found, numbers)


def check_chart(path: Path) -> None:
    """Whether a chart can be drawn there, before anything is computed.

    Raises:
        SimulationError: Its kind is unknown, its folder is not there, or matplotlib is not.
    """
    from tbcluster.cli.charts import check

    check(path)


def _run(
    request: PlanRequest,
    rack: Path | None,
    workloads: Sequence[Workload],
    failures: Sequence[Failure],
    *,
    local: bool,
    most_s: float | None,
) -> list["Simulated"]:
    from tbcluster.simulator.planned import simulate_planned, with_stages_at_once

    planned = planned_model(request, rack, local=local)
    if rack is None:
        with busy("measuring how many stages compute at once", console):
            planned = with_stages_at_once(planned)
    name = _name(rack)
    done = []
    for workload in workloads:
        total = len(workload.requests)
        with CountBar(f"simulating {name}, requests", total, console) as bar:
            done.append(
                simulate_planned(
                    planned,
                    workload,
                    name=name,
                    failures=tuple(failures),
                    most_s=most_s,
                    wishes=request.wishes,
                    on_progress=bar.show,
                )
            )
    return done


def _name(rack: Path | None) -> str:
    return rack.stem if rack is not None else "this rack"


def _tell(
    found: Sequence[Sequence["Simulated"]],
    numbers: Sequence[int] | None,
    *,
    is_comparison: bool,
    as_json: bool,
) -> None:
    if as_json:
        runs = [facts(one, number) for rack in found for one, number in _numbered(rack, numbers)]
        typer.echo(json.dumps(runs if is_comparison or numbers is not None else runs[0], indent=2))
        return
    screen = output()
    for note in dict.fromkeys(note for rack in found for note in rack[0].planned.notes):
        say(note)
    if numbers is not None:
        for rack in found:
            screen.print(sweep_table(rack, numbers))
            screen.print(plain(planned_line(rack[0])), soft_wrap=True)
    elif is_comparison:
        screen.print(comparison([rack[0] for rack in found]))
    else:
        show_result(screen, found[0][0])


def _numbered(
    rack: Sequence["Simulated"], numbers: Sequence[int] | None
) -> Iterable[tuple["Simulated", int | None]]:
    known: Sequence[int | None] = numbers or [None] * len(rack)
    return zip(rack, known, strict=True)


def facts(one: "Simulated", clients: int | None = None) -> dict[str, Any]:
    """All of it, as programs read it."""
    result = replace(one.result, spans=())
    return {
        "rack": one.name,
        **({} if clients is None else {"clients": clients}),
        "model": one.planned.profile.name,
        "plan": asdict(one.planned.plan),
        "result": {
            **asdict(result),
            "usd_per_token_per_s": result.usd_per_token_per_s,
            "idle_shares": [stage.idle_share for stage in result.stages],
        },
        "speeds": {node.name: node.speed.source.value for node in one.planned.rack.nodes},
        "notes": list(one.planned.notes),
    }


def _draw(
    path: Path, found: Sequence[Sequence["Simulated"]], numbers: Sequence[int] | None
) -> None:
    from tbcluster.cli.charts import draw_sweep, draw_timeline

    if numbers is not None:
        draw_sweep(path, found, numbers)
    else:
        draw_timeline(path, [rack[0] for rack in found])
    say(f"drawn to {path}")


def _sweep(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(1 <= number <= MAX_CLIENTS for number in numbers):
        raise SimulationError(
            f"--sweep {text!r}: write numbers of clients, 1 to {MAX_CLIENTS:,}, such as 1,2,4,8"
        )
    return numbers


def _context_for(prompt: Lengths, answer: Lengths, trace: Path | None) -> int | None:
    """A promise that holds the workload's longest request; the usual one for a trace."""
    return None if trace is not None else prompt.most + answer.most
