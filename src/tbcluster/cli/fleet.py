"""`tbcluster fleet`: many sites planned at once, as a file describes them."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tbcluster.cli.loading import console, say
from tbcluster.cli.options import Bits, Context, KvBits
from tbcluster.cli.plan_view import figure, model_line
from tbcluster.cli.progress import busy
from tbcluster.cli.rack import only_errors, output, plain, table
from tbcluster.cluster.fleet_file import fleet_of_file, read_fleet_file
from tbcluster.planner.fleet import FleetPlan, JoinedPlan, RegionPlan, SitePlan, plan_fleet
from tbcluster.planner.plan import DEFAULT_STREAMS, Wishes
from tbcluster.planner.words import count


def fleet(
    model: Annotated[str, typer.Argument(help="A model folder or a Hugging Face id.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE.toml", help="The fleet (see configs/fleets).")
    ],
    streams: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Promise the context to so many streams for each copy that there is memory for "
            f"({DEFAULT_STREAMS}).",
            show_default=False,
        ),
    ] = None,
    context: Context = None,
    bits: Bits = None,
    kv_bits: KvBits = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how many copies of a model a fleet of racks holds, where, and how fast they are.

    Nothing is loaded, and nothing of the fleet needs to be there. The exit code is 1 if no site
    holds a copy.
    """
    from tbcluster.cluster.capacity import describe

    described_fleet = read_fleet_file(file)
    wishes = Wishes(context=context, streams=streams or DEFAULT_STREAMS, kv_bits=kv_bits)
    with busy("planning", console), only_errors():
        described = describe(model, bits, kv_bits)
        profile = described.profile
        made = fleet_of_file(described_fleet, file.parent, profile.weight_kind)
        plan = plan_fleet(profile, made, wishes)
    if as_json:
        typer.echo(json.dumps(facts(plan), indent=2))
    else:
        for note in described.notes:
            say(note)
        screen = output()
        screen.print(plain(model_line(profile)), soft_wrap=True)
        screen.print()
        show_fleet(screen, plan)
    if not plan.num_replicas:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Row:
    """Sites of one kind and region that run the same."""

    region: str
    sites: tuple[SitePlan, ...]

    @property
    def name(self) -> str:
        """What they are called together."""
        return self.sites[0].site.kind or self.sites[0].site.name


def rows(region: RegionPlan) -> Iterator[Row]:
    """A region's sites by kind; those that take part in joined pipelines by themselves."""
    kinds: dict[tuple[str, bool], list[SitePlan]] = {}
    for site in region.sites:
        kinds.setdefault((site.site.kind or site.site.name, bool(site.joined)), []).append(site)
    for sites in kinds.values():
        yield Row(region.name, tuple(sites))


def joined_rows(region: RegionPlan) -> dict[str, list[JoinedPlan]]:
    """Pipelines over several sites, those over equal kinds of sites together: "2 shop joined"."""
    kinds = {site.site.name: site.site.kind or site.site.name for site in region.sites}
    found: dict[str, list[JoinedPlan]] = {}
    for one in region.joined:
        numbers = Counter(kinds[name] for name in one.sites)
        parts = [f"{number} {kind}" if number > 1 else kind for kind, number in numbers.items()]
        found.setdefault(f"{' + '.join(parts)} joined", []).append(one)
    return found


def show_fleet(screen: Console, plan: FleetPlan) -> None:
    """A row for each kind of site, what all of it gives, and why sites or nodes are unused."""
    screen.print(fleet_table(plan))
    screen.print()
    for line in fleet_lines(plan):
        screen.print(plain(line), soft_wrap=True)
    reasons = list(_reasons(plan))
    if reasons:
        screen.print()
        screen.print("why:")
    for reason in reasons:
        screen.print(plain(f"  {reason}"), soft_wrap=True)


def fleet_table(plan: FleetPlan) -> Table:
    """By region and kind of site, pipelines over several sites last."""
    columns = ("sites", "nodes", "used", "copies", "one stream", "all")
    made = table("region", "site", *columns, right=columns)
    for region in plan.regions:
        for row in rows(region):
            replicas = [r for pod in row.sites[0].pods for r in pod.plan.replicas]
            made.add_row(
                plain(row.region),
                plain(row.name),
                f"{len(row.sites):,}",
                f"{sum(site.num_nodes for site in row.sites):,}",
                f"{sum(site.num_used for site in row.sites):,}",
                f"{sum(site.num_replicas for site in row.sites):,}",
                _rate(max((r.stream_tokens_per_s for r in replicas), default=0.0)),
                _rate(sum(site.tokens_per_s for site in row.sites)),
            )
        for name, pipelines in joined_rows(region).items():
            copies = [copy for one in pipelines for copy in one.pod.plan.replicas]
            made.add_row(
                plain(region.name),
                plain(name),
                f"{sum(len(one.sites) for one in pipelines):,}",
                "",
                "",
                f"{len(copies):,}",
                _rate(max(copy.stream_tokens_per_s for copy in copies)),
                _rate(sum(one.pod.tokens_per_s for one in pipelines)),
            )
    return made


def fleet_lines(plan: FleetPlan) -> Iterator[str]:
    """What to expect of all of it."""
    copies = "1 copy" if plan.num_replicas == 1 else f"{plan.num_replicas:,} copies"
    yield f"{copies} of {plan.model} on {plan.num_used:,} of {count(plan.num_nodes, 'node')}"
    if plan.num_replicas:
        slowest, fastest = plan.stream_tokens_per_s
        one = figure(fastest) if slowest == fastest else f"{figure(slowest)} to {figure(fastest)}"
        yield (
            f"predicted: {one} tokens/s for one stream, {figure(plan.tokens_per_s)} for all of them"
        )
    streams = count(plan.num_streams, "stream")
    yield f"promised: {streams} of {plan.context:,} tokens at once, over all copies"


def facts(plan: FleetPlan) -> dict[str, Any]:
    """All of it, as programs read it."""
    slowest, fastest = plan.stream_tokens_per_s
    return {
        "model": plan.model,
        "context": plan.context,
        "streams": plan.num_streams,
        "copies": plan.num_replicas,
        "nodes": plan.num_nodes,
        "used_nodes": plan.num_used,
        "tokens_per_s": plan.tokens_per_s,
        "stream_tokens_per_s": {"slowest": slowest, "fastest": fastest},
        "regions": [_region_facts(region) for region in plan.regions],
    }


def _region_facts(region: RegionPlan) -> dict[str, Any]:
    return {
        "name": region.name,
        "tokens_per_s": region.tokens_per_s,
        "sites": [_site_facts(site) for site in region.sites],
        "joined": [
            {
                "name": one.name,
                "sites": list(one.sites),
                "copies": [_copy_facts(copy) for copy in one.pod.replicas()],
            }
            for one in region.joined
        ],
    }


def _site_facts(site: SitePlan) -> dict[str, Any]:
    return {
        "name": site.site.name,
        "kind": site.site.kind,
        "nodes": site.num_nodes,
        "unused": list(site.unused),
        "reasons": list(site.reasons),
        "joined": site.joined or None,
        "tokens_per_s": site.tokens_per_s,
        "copies": [_copy_facts(copy) for pod in site.pods for copy in pod.replicas()],
    }


def _copy_facts(copy: Any) -> dict[str, Any]:
    return {
        "stages": [{"node": stage.node, "layers": str(stage.layers)} for stage in copy.stages],
        "streams": copy.streams,
        "tokens_per_s": copy.tokens_per_s,
        "stream_tokens_per_s": copy.stream_tokens_per_s,
        "longest_context": copy.longest_context,
    }


def _reasons(plan: FleetPlan) -> Iterator[str]:
    for region in plan.regions:
        for row in rows(region):
            for reason in row.sites[0].reasons:
                yield f"{_named(row.sites)}: {reason}"


def _named(sites: Sequence[SitePlan]) -> str:
    first = sites[0].site
    if len(sites) == 1:
        return first.name
    return f"{first.kind or first.name} ({len(sites):,} sites)"


def _rate(tokens_per_s: float) -> str:
    return f"{figure(tokens_per_s)} tokens/s" if tokens_per_s else "-"
