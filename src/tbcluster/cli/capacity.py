"""`tbcluster capacity`: how many Macs a model needs to be so fast, and what one more would add."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.console import Console

from tbcluster.cli.loading import console, say
from tbcluster.cli.options import Bits, KvBits, Model
from tbcluster.cli.plan_view import figure, model_line
from tbcluster.cli.progress import busy
from tbcluster.cli.rack import only_errors, output, plain, table
from tbcluster.cluster.rack_file import LinkKind, read_rack_file
from tbcluster.planner.capacity import MAX_NODES, Addition, Goal, RackFigures
from tbcluster.planner.plan import DEFAULT_CONTEXT, DEFAULT_STREAMS, Wishes
from tbcluster.planner.words import count

if TYPE_CHECKING:
    # MLX takes its time to import, which other commands should not wait for.
    from tbcluster.cluster.capacity import Candidate

LINKS = get_args(LinkKind)


def link_kind(text: str) -> LinkKind:
    """A kind of link, as rack files have it."""
    if text not in LINKS:
        raise typer.BadParameter(f"{text!r} is no kind of link: take one of {', '.join(LINKS)}")
    return cast("LinkKind", text)


def capacity(
    model: Model = None,
    tokens_per_s: Annotated[
        float | None,
        typer.Option(
            "--tokens-per-s",
            metavar="X",
            help="Tokens a second that one stream shall get; with --total all of them together.",
            show_default=False,
        ),
    ] = None,
    total: Annotated[bool, typer.Option("--total", help="All streams together.")] = False,
    streams: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Keep room for so many streams at once (1; {DEFAULT_STREAMS} with --total or "
            "--rack).",
            show_default=False,
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="TOKENS",
            help=f"Of each stream, prompt and answer together ({DEFAULT_CONTEXT:,}).",
            show_default=False,
        ),
    ] = None,
    bits: Bits = None,
    kv_bits: KvBits = None,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node",
            metavar="CHIP:GB",
            help='A kind of Mac to look at, such as "M4 Pro:64"; may be repeated (some current '
            "ones).",
            show_default=False,
        ),
    ] = None,
    link: Annotated[
        str | None,
        typer.Option(
            parser=link_kind,
            metavar="KIND",
            help="How nodes are linked, as in a rack file (thunderbolt5, beside gigabit Ethernet).",
            show_default=False,
        ),
    ] = None,
    max_nodes: Annotated[
        int, typer.Option("--max-nodes", min=1, max=MAX_NODES, help="The largest rack to look at.")
    ] = MAX_NODES,
    rack: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Say what --add would add to the rack that this file describes.",
            show_default=False,
        ),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add",
            metavar="CHIP:GB",
            help="With --rack: a Mac to add; may be repeated.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say how many Macs of each kind serve a model at X tokens a second, or what one more adds.

    Nothing is loaded, and no rack needs to be there: every answer is a plan for a rack that is only
    described.
    """
    _check_options(tokens_per_s, rack, add, node, total=total)
    wishes = Wishes(
        context=context,
        streams=streams or (DEFAULT_STREAMS if total or rack is not None else 1),
        kv_bits=kv_bits,
    )
    kind = cast("LinkKind | None", link)
    if rack is not None:
        _show_addition(model, rack, add or [], wishes, kind, bits, as_json=as_json)
        return
    goal = Goal(tokens_per_s or 0.0, wishes, total, max_nodes)
    _show_racks(model, goal, node or [], kind, bits, as_json=as_json)


def _check_options(
    tokens_per_s: float | None,
    rack: Path | None,
    add: list[str] | None,
    node: list[str] | None,
    *,
    total: bool,
) -> None:
    if rack is None and add:
        raise typer.BadParameter("it adds to a rack: name its file with --rack", param_hint="--add")
    if rack is None and tokens_per_s is None:
        raise typer.BadParameter(
            "say how fast it shall be, such as 20; or name a rack with --rack and what to --add",
            param_hint="--tokens-per-s",
        )
    if rack is not None and not add:
        raise typer.BadParameter('say what to --add, such as "M4 Pro:64"', param_hint="--rack")
    if rack is not None and (tokens_per_s is not None or node or total):
        raise typer.BadParameter(
            "it says what a rack gives as it is, and with --add: leave out --tokens-per-s, --total "
            "and --node",
            param_hint="--rack",
        )


def _show_racks(
    model: str | None,
    goal: Goal,
    nodes: list[str],
    link: LinkKind | None,
    bits: int | None,
    *,
    as_json: bool,
) -> None:
    from tbcluster.cluster.capacity import describe, node_kind, smallest_racks

    kinds = [node_kind(text) for text in nodes]
    with busy("planning", console), only_errors():
        described = describe(model, bits, goal.wishes.kv_bits)
        found = smallest_racks(described.profile, goal, kinds, link)
    if as_json:
        told = {
            "model": described.profile.name,
            "goal": asdict(goal),
            "racks": [_candidate_facts(one) for one in found],
        }
        typer.echo(json.dumps(told, indent=2))
        return
    for note in described.notes:
        say(note)
    screen = output()
    screen.print(plain(model_line(described.profile)), soft_wrap=True)
    screen.print(plain(_goal_line(goal)), soft_wrap=True)
    screen.print()
    screen.print(racks_table(found, goal))
    for one in found:
        if one.sized.figures is None:
            screen.print(plain(f"{one.kind}: {one.sized.because}"), soft_wrap=True)


def racks_table(found: "tuple[Candidate, ...]", goal: Goal) -> Any:
    """A row for each kind: how many, and what they give; of those that never do the fastest."""
    columns = ("Macs", *_columns(goal.wishes))
    made = table("kind", *columns, "", right=columns)
    for one in found:
        shown = one.sized.figures or one.sized.best
        if shown is None:
            made.add_row(plain(str(one.kind)), *["-"] * len(columns), plain("does not fit"))
            continue
        told = one.sized.because if one.sized.figures is not None else "not fast enough"
        made.add_row(
            plain(str(one.kind)), f"{shown.num_nodes}", *_cells(shown, goal.wishes), plain(told)
        )
    return made


def _show_addition(
    model: str | None,
    file: Path,
    add: list[str],
    wishes: Wishes,
    link: LinkKind | None,
    bits: int | None,
    *,
    as_json: bool,
) -> None:
    from tbcluster.cluster.capacity import added, describe, node_kind

    rack = read_rack_file(file)
    own = [table.chip() for table in rack.chips]
    kinds = [node_kind(text, own) for text in add]
    with busy("planning", console), only_errors():
        described = describe(model, bits, wishes.kv_bits)
        found = added(described.profile, rack, kinds, wishes, link)
    if as_json:
        told = {"model": described.profile.name, "added": [asdict(kind) for kind in kinds]}
        typer.echo(json.dumps({**told, **asdict(found)}, indent=2))
        return
    for note in described.notes:
        say(note)
    screen = output()
    screen.print(plain(model_line(described.profile)), soft_wrap=True)
    screen.print()
    names = ", ".join(map(str, kinds))
    _print_addition(screen, found, f"with {names}", wishes)


def _print_addition(screen: Console, found: Addition, then: str, wishes: Wishes) -> None:
    columns = ("nodes", *_columns(wishes), "longest")
    made = table("rack", *columns, right=columns)
    for name, figures in (("now", found.now), (then, found.then)):
        if figures is None:
            made.add_row(plain(name), *["-"] * (len(columns) - 1), "does not fit")
            continue
        longest = f"{figures.longest_context:,} tokens"
        nodes = f"{figures.num_used} of {figures.num_nodes}"
        made.add_row(plain(name), nodes, *_cells(figures, wishes), longest)
    screen.print(made)
    screen.print(plain(addition_line(found)), soft_wrap=True)


def addition_line(found: Addition) -> str:
    """What it comes to, in a sentence."""
    now, then = found.now, found.then
    if then is None:
        return "it would not fit then either: `tbcluster plan` says how much is missing"
    if now is None:
        return "the model does not fit now; it would then"
    if then.num_used <= now.num_used and then.tokens_per_s <= now.tokens_per_s:
        return "it would stay unused for this model: another node only adds a hop"
    return (
        f"one stream {_change(then.stream_tokens_per_s, now.stream_tokens_per_s)}, all together "
        f"{_change(then.tokens_per_s, now.tokens_per_s)}"
    )


def _change(then: float, now: float) -> str:
    return f"{100 * (then / now - 1):+.0f} %"


def _columns(wishes: Wishes) -> tuple[str, ...]:
    together = (f"{wishes.streams:,} together",) if wishes.streams > 1 else ()
    return ("one stream", *together, "watts", "price")


def _cells(figures: RackFigures, wishes: Wishes) -> tuple[str, ...]:
    together = (f"{figure(figures.tokens_per_s)} tokens/s",) if wishes.streams > 1 else ()
    return (
        f"{figure(figures.stream_tokens_per_s)} tokens/s",
        *together,
        "-" if figures.power_w is None else f"{figures.power_w:,.0f} W",
        "-" if figures.price_usd is None else f"${figures.price_usd:,.0f}",
    )


def _goal_line(goal: Goal) -> str:
    streams = count(goal.wishes.streams, "stream")
    whom = f"{streams} together" if goal.is_total else "one stream"
    return f"asked for: {figure(goal.tokens_per_s)} tokens/s for {whom}, room for {streams}"


def _candidate_facts(one: "Candidate") -> dict[str, Any]:
    return {**asdict(one.kind), **asdict(one.sized), "is_enough": one.sized.figures is not None}
