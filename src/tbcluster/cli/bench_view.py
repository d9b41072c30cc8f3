"""A load test as tables. Pure."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tbcluster.cli.rack import plain, table
from tbcluster.loadtest.plan import LoadPlan
from tbcluster.loadtest.report import Facts, Ratio
from tbcluster.loadtest.run import Measured
from tbcluster.loadtest.summary import CellSummary, Spread

# Pieces of an answer that hold this many tokens are one token each.
ONE_TOKEN = 1.05
NONE = "-"
MS_PER_S = 1000
# A few tokens, such as the one that all texts begin with, are always known.
KNOWN_SHARE = 0.1


def report(facts: Facts, plan: LoadPlan, measured: Sequence[Measured]) -> RenderableType:
    """What was measured, the figures, and what to know of them."""
    head = f"{facts.model} at {facts.url}, {facts.api}, {facts.date:%Y-%m-%d %H:%M}"
    asked = f"{plan.output_tokens:,} tokens asked for, {plan.repeats} requests of each client"
    summaries = [one.summary for one in measured]
    return Group(
        plain(f"{head}: {asked}"),
        cell_table(summaries),
        Text("tok/s: of all clients; each, prompt/s, first (token), gap and total: medians", "dim"),
        *(Text.assemble(("! ", "yellow"), plain(note)) for note in notes(plan, summaries)),
        *(() if facts.is_whole else (Text("Stopped early: not all was measured.", "yellow"),)),
    )


def cell_table(summaries: Sequence[CellSummary]) -> Table:
    """A row for each number of clients and prompt length."""
    has_joules = any(one.joules_per_token is not None for one in summaries)
    columns = (
        *("streams", "prompt", "tok/s", "each", "prompt/s", "first ms", "p99", "gap ms", "p99"),
        *("total s", *(("J/token",) if has_joules else ()), "failed"),
    )
    made = table(*columns, right=columns)
    for one in summaries:
        failed = sum(number for _, number in one.errors)
        made.add_row(
            str(one.cell.streams),
            f"{one.cell.prompt_tokens:,}",
            _figure(one.output_tokens_per_s),
            _middle(one.stream_tokens_per_s),
            _middle(one.prompt_tokens_per_s),
            *_spread_ms(one.first_token_s),
            *_spread_ms(one.gap_s),
            _middle(one.total_s),
            *((_figure(one.joules_per_token),) if has_joules else ()),
            Text(str(failed), "red" if failed else ""),
        )
    return made


def notes(plan: LoadPlan, summaries: Sequence[CellSummary]) -> list[str]:
    """What a reader of the figures has to know: failures, short answers, pieces of more tokens."""
    said = []
    for one in summaries:
        clients = "1 client" if one.cell.streams == 1 else f"{one.cell.streams} clients"
        where = f"{clients}, {one.cell.prompt_tokens:,} prompt tokens"
        said += [f"{where}: {number} failed: {error}" for error, number in one.errors]
        if one.num_short:
            said.append(
                f"{where}: {one.num_short} of {one.num_good} answers ended before "
                f"{plan.output_tokens:,} tokens; rates are of the tokens that came"
            )
        least_most = (one.cell.prompt_tokens, one.cell.prompt_tokens)
        if one.prompt_tokens is not None and one.prompt_tokens != least_most:
            least, most = one.prompt_tokens
            said.append(f"{where}: the server counted {least:,} to {most:,} prompt tokens")
        known = KNOWN_SHARE * one.cell.prompt_tokens * one.num_good
        if one.cached_tokens > known and not plan.shared_prefix:
            said.append(f"{where}: {one.cached_tokens:,} prompt tokens came from a prefix cache")
        if one.piece_tokens is not None and one.piece_tokens > ONE_TOKEN:
            said.append(
                f"{where}: a piece of the stream held {one.piece_tokens:.1f} tokens; "
                "gaps are between pieces"
            )
    return said


def ratio_table(found: Sequence[Ratio]) -> Table:
    """This run's figures over an earlier one's."""
    columns = ("streams", "prompt", "tok/s", "first token", "gap")
    made = table(*columns, right=columns)
    for one in found:
        made.add_row(
            str(one.streams),
            f"{one.prompt_tokens:,}",
            *(
                NONE if ratio is None else f"{ratio:.2f}x"
                for ratio in (one.output_tokens_per_s, one.first_token_s, one.gap_s)
            ),
        )
    return made


def _figure(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _middle(spread: Spread | None) -> str:
    return NONE if spread is None else _figure(spread.p50)


def _spread_ms(spread: Spread | None) -> tuple[str, str]:
    """Median and 99th percentile."""
    if spread is None:
        return NONE, NONE
    return _figure(MS_PER_S * spread.p50), _figure(MS_PER_S * spread.p99)
