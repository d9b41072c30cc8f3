"""A plan as people read it: who runs what, in which memory, how fast, and why."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tbcluster.cli.rack import plain, table
from tbcluster.cluster.doctor import amounts
from tbcluster.core import MAX_CHUNK_TOKENS
from tbcluster.planner.cost import Promise
from tbcluster.planner.nodes import PlanRack, SpeedSource
from tbcluster.planner.plan import LeftOut, Plan, PlannedReplica, PlannedStage
from tbcluster.planner.profile import ModelProfile
from tbcluster.planner.tensor_parallel import tensor_parallel_groups

MEMORY_COLUMNS = ("weights", "KV", "of memory")
TIME_COLUMNS = ("decode", "prefill", "hop")
# What a node's memory is for: a mark each, and one for terminals that have ASCII alone.
PARTS = ("weights", "KV caches", "activations", "reserve", "free")
MARKS = "█▓▒░·"
ASCII_MARKS = "#=+-."
STYLES = ("cyan", "green", "yellow", "magenta", "dim")
MAX_TABLE_WIDTH = 1000
# Weights take so many times their files, if they are computed in a wider type.
WIDENED = 1.1
MIN_BAR_WIDTH = 10
MAX_BAR_WIDTH = 60
SOURCES = {
    SpeedSource.CATALOGUE: "taken from a table of chips, not measured",
    SpeedSource.ASSUMED: "assumed: neither measured nor known by the chip's name",
}


def show_plan(
    screen: Console, plan: Plan, profile: ModelProfile | None = None, rack: PlanRack | None = None
) -> None:
    """All that is to be said of a plan."""
    if profile is not None:
        screen.print(plain(model_line(profile)), soft_wrap=True)
        screen.print()
    _show_replicas(screen, plan)
    screen.print(memory_bars(plan))
    screen.print(_Legend())
    screen.print()
    _show_speeds(screen, plan)
    _show_list(screen, "left out:", map(_left_out, plan.left_out))
    _show_list(screen, "why:", plan.reasons)
    _show_list(screen, "speeds:", speed_sources(plan, rack) if rack is not None else ())


def show_briefly(screen: Console, plan: Plan) -> None:
    """The plan before a model is loaded: who runs what, and what to expect."""
    _show_replicas(screen, plan)
    _show_speeds(screen, plan)
    _show_list(screen, "left out:", map(_left_out, plan.left_out))


def model_line(profile: ModelProfile) -> str:
    """ "R1: 61 layers, 671 billion parameters (37.6 billion used by each token), 377 GiB of weights
    (4-bit/64)"; and of what files they are made where that is less."""
    active = profile.active_parameters < 0.99 * profile.num_parameters
    used = f" ({_count(profile.active_parameters)} used by each token)" if active else ""
    weights = profile.weight_bytes
    is_widened = 0 < profile.file_bytes * WIDENED < weights
    widened = f", widened on loading from files of {size(profile.file_bytes)}" if is_widened else ""
    return (
        f"{profile.name}: {len(profile.layers)} layers, {_count(profile.num_parameters)} "
        f"parameters{used}, {size(weights)} of weights ({profile.weight_kind}{widened})"
    )


def stage_tables(replica: PlannedReplica, screen: Console) -> list[Table]:
    """A row for each stage: its node and layers, what they take there, and how long a step is. In
    two tables where the screen is too narrow for one."""
    columns = (*MEMORY_COLUMNS, *TIME_COLUMNS)
    whole = _stage_table(replica, columns)
    unbounded = screen.options.update(width=MAX_TABLE_WIDTH)
    if Measurement.get(screen, unbounded, whole).maximum <= screen.width:
        return [whole]
    return [_stage_table(replica, MEMORY_COLUMNS), _stage_table(replica, TIME_COLUMNS)]


def _stage_table(replica: PlannedReplica, columns: Sequence[str]) -> Table:
    names = [stage.node for stage in replica.stages]
    made = table("node", "layers", *columns, right=columns, names=names)
    for stage in replica.stages:
        cells = {
            "weights": size(stage.weight_bytes),
            "KV": size(stage.kv_bytes),
            "of memory": part_of(stage.used_bytes, stage.memory_bytes),
            "decode": seconds(stage.decode_s),
            "prefill": seconds(stage.prefill_s),
            "hop": seconds(stage.hop_s),
        }
        made.add_row(plain(stage.node), _layers(stage), *(cells[name] for name in columns))
    return made


def memory_bars(plan: Plan) -> Table:
    """A bar for each node that runs something: what its memory is for."""
    stages = [stage for replica in plan.replicas for stage in replica.stages]
    made = table("node", "memory", "", names=[stage.node for stage in stages])
    made.show_header = False
    for node, group in groupby(sorted(stages, key=_node), key=_node):
        here = list(group)
        parts = _parts(here)
        used = sum(parts[:-1])
        made.add_row(
            plain(node), MemoryBar(parts), f"{share(used, here[0].memory_bytes)} of memory"
        )
    return made


@dataclass(frozen=True, slots=True)
class MemoryBar:
    """Amounts as a bar of marks, as long as its column; each that is not 0 has a mark."""

    parts: Sequence[int]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        marks = ASCII_MARKS if options.ascii_only else MARKS
        widths = bar_widths(self.parts, min(options.max_width, MAX_BAR_WIDTH))
        yield Text.assemble(
            *(
                (mark * width, style)
                for mark, width, style in zip(marks, widths, STYLES, strict=True)
            )
        )

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(MIN_BAR_WIDTH, MAX_BAR_WIDTH)


class _Legend:
    """What the marks of the bars mean."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        marks = ASCII_MARKS if options.ascii_only else MARKS
        named = zip(marks, PARTS, STYLES, strict=True)
        yield Text("   ").join(
            Text.assemble((mark, style), f" {part}") for mark, part, style in named
        )


def bar_widths(parts: Sequence[int], width: int) -> list[int]:
    """How many of `width` marks each part gets: in proportion, at least one for what is not 0."""
    total = sum(parts)
    if total <= 0:
        return [0] * len(parts)
    widths = [max(1, part * width // total) if part > 0 else 0 for part in parts]
    while (over := sum(widths) - width) and max(widths) > 1:
        # The widest gives, or takes what rounding has left.
        widest = widths.index(max(widths))
        widths[widest] -= min(over, widths[widest] - 1)
    return widths


def speed_lines(plan: Plan) -> Iterator[str]:
    """What to expect, and what is promised."""
    streams = _streams(plan.streams)
    total = sum(replica.tokens_per_s for replica in plan.replicas)
    alone = max(replica.stream_tokens_per_s for replica in plan.replicas)
    prefill = max(replica.prefill_tokens_per_s for replica in plan.replicas)
    longest = max(replica.longest_context for replica in plan.replicas)
    yield (
        f"predicted: {figure(alone)} tokens/s for one stream, {figure(total)} for {streams} "
        f"together; prompts at {figure(prefill)} tokens/s"
    )
    each = "each of " if plan.streams > 1 else ""
    yield (
        f"promised: {plan.context:,} tokens of context for {each}{streams}; one stream alone may "
        f"have {longest:,}"
    )


def tensor_parallel_lines(profile: ModelProfile, rack: PlanRack, context: int) -> Iterator[str]:
    """What sharing each layer would give, by how long collectives take."""
    groups = tensor_parallel_groups(profile, rack)
    if not groups:
        yield "tensor parallel: needs two or more equal nodes that hold the model together"
    for group in groups.values():
        yield (
            f"tensor parallel, which tbcluster does not do, with all-reduces of "
            f"{seconds(group.collective.latency_s)} (RDMA): "
            f"{figure(group.tokens_per_s(context // 2))} tokens/s for one stream; prompts at "
            f"{figure(group.prompt_tokens_per_s(context))} tokens/s"
        )


def times_line(plan: Plan, replica: PlannedReplica) -> str:
    """What the columns of times count."""
    lane = Promise(plan.context, replica.streams)
    num_stages = len(replica.stages)
    together = lane.rows(num_stages)
    groups = lane.num_lanes(num_stages)
    streams = "1 stream" if together == 1 else f"{together:.2g} streams"
    taken = f" ({replica.streams:,} take turns in {groups} groups)" if groups > 1 else ""
    return (
        f"decode: a step of {streams}{taken} at {plan.context // 2:,} tokens; prefill: "
        f"{MAX_CHUNK_TOKENS:,} tokens of a prompt; hop: the step's way to the next stage"
    )


def speed_sources(plan: Plan, rack: PlanRack) -> Iterator[str]:
    """Lines on nodes whose speed was not measured."""
    used = {stage.node for replica in plan.replicas for stage in replica.stages}
    for source, words in SOURCES.items():
        names = [n.name for n in rack.nodes if n.name in used and n.speed.source is source]
        if names:
            yield f"{', '.join(names)}: {words}"


def size(num_bytes: float) -> str:
    """ "37.4 GiB", "1,249.9 GiB", or "512 MiB" below one."""
    if num_bytes >= 2**30:
        return f"{num_bytes / 2**30:,.1f}".removesuffix(".0") + " GiB"
    return f"{num_bytes / 2**20:.{0 if num_bytes >= 10 * 2**20 else 1}f} MiB"


def part_of(part: int, whole: int) -> str:
    """ "37.4 of 48 GiB"."""
    number, unit = size(part).split(" ")
    return (
        f"{number} of {size(whole)}"
        if size(whole).endswith(unit)
        else f"{size(part)} of {size(whole)}"
    )


def share(part: int, whole: int) -> str:
    """ "88 %"."""
    return f"{100 * part / whole:.0f} %" if whole > 0 else "-"


def seconds(value: float) -> str:
    """ "310 us", "12.3 ms", "1.2 s"."""
    if value >= 1:
        return f"{value:.1f} s"
    return amounts.round_trip(value * 1e6)


def figure(value: float) -> str:
    """Three digits at most: "0.52", "21.3", "1,240"."""
    if value >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def _show_replicas(screen: Console, plan: Plan) -> None:
    num_replicas = len(plan.replicas)
    told = ""
    for number, replica in enumerate(plan.replicas, 1):
        if num_replicas > 1:
            screen.print(
                plain(f"replica {number} of {num_replicas}, for {_streams(replica.streams)}:")
            )
        for made in stage_tables(replica, screen):
            screen.print(made)
            screen.print()
        if (meaning := times_line(plan, replica)) != told:
            _print_prose(screen, meaning)
            screen.print()
            told = meaning


def _show_list(screen: Console, title: str, lines: Iterable[str]) -> None:
    shown = list(lines)
    if shown:
        screen.print()
        screen.print(title)
    for line in shown:
        _print_prose(screen, line, indent=2)


def _show_speeds(screen: Console, plan: Plan) -> None:
    for line in speed_lines(plan):
        _print_prose(screen, line)


def _print_prose(screen: Console, text: str, indent: int = 0) -> None:
    """A sentence, which what is no terminal gets as one line."""
    if screen.is_terminal:
        screen.print(Padding(plain(text), (0, 0, 0, indent), expand=False))
    else:
        screen.print(plain(" " * indent + text), soft_wrap=True)


def _layers(stage: PlannedStage) -> str:
    one = stage.layers.start if stage.layers.end - stage.layers.start == 1 else None
    return str(stage.layers) if one is None else str(one)


def _left_out(one: LeftOut) -> str:
    return f"{one.node}: {one.because}"


def _streams(number: int) -> str:
    return "1 stream" if number == 1 else f"{number:,} streams"


def _count(number: int) -> str:
    for limit, unit in ((10**12, "trillion"), (10**9, "billion"), (10**6, "million")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:,}"


def _node(stage: PlannedStage) -> str:
    return stage.node


def _parts(stages: Sequence[PlannedStage]) -> tuple[int, ...]:
    """What a node's memory is for, in the order of `PARTS`."""
    used = (
        sum(stage.weight_bytes for stage in stages),
        sum(stage.kv_bytes for stage in stages),
        sum(stage.activation_bytes for stage in stages),
        sum(stage.reserve_bytes for stage in stages),
    )
    return (*used, max(0, stages[0].memory_bytes - sum(used)))
