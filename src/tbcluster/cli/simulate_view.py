"""What a simulation has found, as people read it."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tbcluster.cli.plan_view import figure, seconds, size, speed_sources
from tbcluster.cli.rack import plain, table
from tbcluster.planner.words import and_list
from tbcluster.simulator.results import Percentiles, SimulationResult, StageUse

if TYPE_CHECKING:
    from tbcluster.simulator.planned import Simulated

UNKNOWN = "-"


def show_result(screen: Console, one: "Simulated") -> None:
    """One simulation: speeds, times, stages, energy."""
    result = one.result
    for line in (*_lines(one), planned_line(one)):
        screen.print(plain(line), soft_wrap=True)
    screen.print()
    screen.print(_stages(result))
    for line in (*result.happenings, *_doubts(one)):
        screen.print(plain(line), soft_wrap=True)


def comparison(found: Sequence["Simulated"]) -> Table:
    """A column for each rack."""
    names = [one.name for one in found]
    made = table("", *names, right=names, names=names)
    for title, cell in COMPARED.items():
        made.add_row(title, *(cell(one) for one in found))
    return made


def planned_line(one: "Simulated") -> str:
    """ "2 copies, of 2 and 1 stages, planned for 16 streams; not used: studio4"."""
    plan = one.planned.plan
    lengths = [str(len(replica.stages)) for replica in plan.replicas]
    copies = "1 copy" if len(lengths) == 1 else f"{len(lengths)} copies"
    unused = and_list([left.node for left in plan.left_out])
    return f"{copies}, of {and_list(lengths)} stages, planned for {plan.streams:,} streams" + (
        f"; not used: {unused}" if unused else ""
    )


def sweep_table(found: Sequence["Simulated"], clients: Sequence[int]) -> Table:
    """A row for each number of clients."""
    columns = ("tokens/s", "a stream", "first token", "95 %", "gap", "95 % ", "idle", "J/token")
    made = table("clients", *columns, right=("clients", *columns))
    made.title = found[0].name
    for one, number in zip(found, clients, strict=True):
        result = one.result
        idle = min((stage.idle_share for stage in result.stages), default=0.0)
        made.add_row(
            str(number),
            figure(result.tokens_per_s),
            _figure(result.stream_tokens_per_s),
            *_two(result.first_token),
            *_two(result.gap),
            f"{100 * idle:.0f} %",
            _figure(result.joules_per_token),
        )
    return made


def _lines(one: "Simulated") -> Iterator[str]:
    result, plan = one.result, one.planned.plan
    yield (
        f"{plan.model}: {result.num_requests:,} requests, {result.num_prompt_tokens:,} prompt "
        f"tokens and {result.num_tokens:,} answer tokens in {seconds(result.seconds)}"
    )
    yield (
        f"throughput: {figure(result.tokens_per_s)} tokens/s of answers, "
        f"{figure(result.prompt_tokens_per_s)} tokens/s of prompts beside them; one stream: "
        f"{_figure(result.stream_tokens_per_s)} tokens/s"
    )
    yield f"first token: {_all(result.first_token)}; between tokens: {_all(result.gap)}"
    yield f"whole answers: {_all(result.duration)}"
    if result.watts is not None:
        yield (
            f"energy: {figure(result.watts)} W, {_figure(result.joules_per_token)} J a token of "
            "answers, prompts included"
        )
    if result.usd_per_token_per_s is not None:
        price = _usd(result.price_usd)
        yield f"price: {price} new, {_usd(result.usd_per_token_per_s)} for each token a second"
    if result.num_preemptions:
        yield f"KV memory ran short: {result.num_preemptions:,} times an answer gave way to others"
    if result.num_unanswered:
        yield f"{result.num_unanswered:,} requests were not answered by then, or had not come"
    if result.num_refused:
        yield f"{result.num_refused:,} requests were refused: {'; '.join(result.refusals)}"


def _stages(result: SimulationResult) -> Table:
    columns = ("decode", "prompts", "idle", "weights", "KV peak", "of")
    names = [_when(stage, result) for stage in result.stages]
    made = table("node", "layers", *columns, right=columns, names=names)
    for stage in result.stages:
        made.add_row(
            plain(_when(stage, result)),
            str(stage.layers),
            *(
                f"{100 * share:.0f} %"
                for share in (stage.decode_share, stage.prompt_share, stage.idle_share)
            ),
            size(stage.weight_bytes),
            size(stage.kv_peak_bytes),
            size(stage.kv_budget_bytes),
        )
    return made


def _when(stage: StageUse, result: SimulationResult) -> str:
    """Its node, and from when to when where others came before or after it."""
    if not result.happenings:
        return stage.node
    return f"{stage.node} {stage.began_s:.0f}-{stage.ended_s:.0f} s"


def _doubts(one: "Simulated") -> Iterator[str]:
    """What the figures rest on, where that was not measured."""
    yield from speed_sources(one.planned.plan, one.planned.rack)
    unknown = [node.node for node in one.result.nodes if node.watts is None]
    if unknown:
        yield f"what {', '.join(unknown)} draws is not known: no watts, no joules"


def _all(values: Percentiles | None) -> str:
    if values is None:
        return UNKNOWN
    return (
        f"{seconds(values.p50_s)} (median), {seconds(values.p95_s)} (95 %), "
        f"{seconds(values.p99_s)} (99 %), {seconds(values.most_s)} (longest)"
    )


def _two(values: Percentiles | None) -> tuple[str, str]:
    if values is None:
        return UNKNOWN, UNKNOWN
    return seconds(values.p50_s), seconds(values.p95_s)


def _figure(value: float | None, unit: str = "") -> str:
    return UNKNOWN if value is None else figure(value) + unit


def _usd(value: float | None) -> str:
    return UNKNOWN if value is None else f"${value:,.0f}"


def _first(one: "Simulated") -> tuple[str, str]:
    return _two(one.result.first_token)


def _longest(one: "Simulated") -> str:
    return f"{max(replica.longest_context for replica in one.planned.plan.replicas):,}"


# What racks are compared in, and a rack's cell of it.
COMPARED: dict[str, Callable[["Simulated"], str]] = {
    "tokens/s": lambda one: figure(one.result.tokens_per_s),
    "of one stream": lambda one: _figure(one.result.stream_tokens_per_s),
    "first token": lambda one: _first(one)[0],
    "95 % of them": lambda one: _first(one)[1],
    "longest context": _longest,
    "watts": lambda one: _figure(one.result.watts, " W"),
    "joules a token": lambda one: _figure(one.result.joules_per_token),
    "price": lambda one: _usd(one.result.price_usd),
    "for each token/s": lambda one: _usd(one.result.usd_per_token_per_s),
}
