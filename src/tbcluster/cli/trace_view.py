"""A request's trace as a picture for a terminal. Pure: data in, renderables out."""

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tbcluster.cli.terminal import harmless
from tbcluster.tracing.trace import RequestSummary, RequestTrace, SequenceTrace, TracedStage
from tbcluster.tracing.waterfall import (
    Piece,
    Row,
    Waterfall,
    away_us,
    waterfall,
    where_time_went,
)

NOTHING = "-"
US_PER_MS, US_PER_S = 1e3, 1e6
# By the stage's position, over and over.
COLOURS = ("blue", "magenta", "green", "cyan", "yellow", "bright_blue", "bright_magenta")
# Neighbours differ without colours, too.
COMPUTE = "█▓"
WIRE, QUEUE = "╌", "░"
LEGEND = f"{COMPUTE} computing, by stage   {WIRE} on the way   {QUEUE} behind other steps"
# What stands before a bar, and the narrowest bar.
BEFORE_BAR, MIN_BAR = 44, 20
# Narrower terminals are shown fewer columns.
WIDE = 110
# Around pauses in which a sequence had no step on its way.
LONG_PAUSE_US = 250_000


def list_picture(requests: Sequence[RequestSummary], width: int) -> RenderableType:
    """The newest requests, a line each."""
    table = _table("when", "request", "model", "outcome")
    table.columns[1].no_wrap, table.columns[1].overflow = False, "fold"
    is_wide = width >= WIDE
    for name in ("prompt", "cached") if is_wide else ():
        table.add_column(name, justify="right")
    for name in ("tokens", "first token", "total", "tokens/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in requests:
        prompt = (f"{one.num_prompt_tokens:,}", f"{one.num_cached_tokens:,}") if is_wide else ()
        table.add_row(
            _clock(one.at),
            Text(harmless(one.request_id)),
            Text(harmless(one.model)),
            Text(harmless(one.outcome), _tone(one.outcome)),
            *prompt,
            f"{one.num_generated_tokens:,}",
            _seconds(one.first_token_us),
            _seconds(one.ended_us),
            _rate(one),
        )
    return table


def trace_picture(trace: RequestTrace, width: int) -> RenderableType:
    """All of a request: what it was, each choice's waterfall, what the stages took."""
    parts: list[RenderableType] = [_head(trace.request)]
    for sequence in trace.sequences:
        parts.append(_sequence(trace, sequence, width))
    errors = _clock_errors(trace.stages)
    if errors:
        parts.append(Text(errors, "dim"))
    return Group(*parts)


def _head(request: RequestSummary) -> Text:
    cached = f" ({request.num_cached_tokens:,} cached)" if request.num_cached_tokens else ""
    text = Text.assemble(
        (harmless(request.model), "bold"),
        f"  {harmless(request.endpoint)}  {_clock(request.at)}  ",
        (harmless(request.outcome), _tone(request.outcome)),
        "\n",
        (f"{harmless(request.request_id)}  {harmless(request.answer_id)}\n", "dim"),
        f"{request.num_prompt_tokens:,} prompt tokens{cached}, ",
        f"{request.num_generated_tokens:,} generated; first token after ",
        f"{_seconds(request.first_token_us)}, total {_seconds(request.ended_us)}",
    )
    if _rate(request) != NOTHING:
        text.append(f", then {_rate(request)} tokens/s")
    return text


def _sequence(trace: RequestTrace, sequence: SequenceTrace, width: int) -> RenderableType:
    drawn = waterfall(sequence)
    parts: list[RenderableType] = [Text()]
    if len(trace.sequences) > 1:
        parts.append(Text(f"choice {sequence.index}: {harmless(sequence.outcome)}", "bold"))
    parts.append(_milestones(sequence))
    if drawn.rows:
        parts += [_bars(drawn, width), Text(LEGEND, "dim"), Text(), _stage_table(trace, drawn)]
        parts += [_summary_table(drawn), Text(harmless(where_time_went(trace, sequence)))]
    else:
        parts.append(Text("No step of it is known any more, or none has come back yet.", "dim"))
    return Group(*parts)


def _milestones(sequence: SequenceTrace) -> Text:
    started = sequence.started_us
    text = Text()
    if not started:
        return text.append("it has not started yet: it waits for memory or its turn", "yellow")
    text.append(f"waited {_ms(started[0] - sequence.submitted_us)}")
    if sequence.first_token_us is not None:
        text.append(f", prefill {_ms(sequence.first_token_us - started[0])}")
        if sequence.ended_us is not None:
            text.append(f", decode {_ms(sequence.ended_us - sequence.first_token_us)}")
    if len(started) > 1:
        times = ", ".join(_seconds(at) for at in started[1:])
        text.append(f"; started over at {times} (preempted, or a stage was lost)", "yellow")
    if sequence.num_lost_steps:
        text.append(f"; {sequence.num_lost_steps:,} older steps are forgotten", "yellow")
    return text


def _bars(drawn: Waterfall, width: int) -> Table:
    table = _table("at", "step", "tokens", "ms")
    table.columns[0].justify = table.columns[2].justify = table.columns[3].justify = "right"
    room = max(MIN_BAR, width - BEFORE_BAR)
    table.add_column(f"0 to {drawn.longest_us / US_PER_MS:.1f} ms", no_wrap=True)
    before: Row | None = None
    for row in drawn.rows:
        pause_us = 0 if before is None else row.step.sent_us - before.step.back_us
        if before is not None and pause_us > LONG_PAUSE_US:
            table.add_row("", Text(f"{_seconds(pause_us)} of other steps, or none", "dim"))
        table.add_row(*_bar_cells(row, drawn.longest_us, room))
        before = row
    if drawn.num_hidden:
        table.add_row("", Text(f"and {drawn.num_hidden:,} more steps", "dim"))
    return table


def _bar_cells(row: Row, longest_us: int, room: int) -> tuple[str | Text, ...]:
    step = row.step
    name = Text(step.kind)
    if step.error:
        name.append(f" failed: {harmless(step.error)}", "red")
    return (
        _seconds(step.sent_us),
        name,
        f"{step.num_tokens}",
        f"{away_us(step) / US_PER_MS:.1f}",
        bar(row.pieces, longest_us, room),
    )


def bar(pieces: Sequence[Piece], longest_us: int, room: int) -> Text:
    """Parts of a step, to scale; the longest step has all the room."""
    text = Text(no_wrap=True)
    cell = 0
    for piece in pieces:
        end = round(piece.end_us / max(1, longest_us) * room)
        if end <= cell:
            continue
        sign, style = QUEUE if piece.kind == "queue" else WIRE, "dim"
        if piece.kind == "compute" and piece.stage is not None:
            sign = COMPUTE[piece.stage % len(COMPUTE)]
            style = COLOURS[piece.stage % len(COLOURS)]
        text.append(sign * (end - cell), style)
        cell = end
    return text


def _stage_table(trace: RequestTrace, drawn: Waterfall) -> Table:
    table = _table("stage", "node", "layers")
    for name in ("compute", "on the way", "queue", "of a step"):
        table.add_column(name, justify="right")
    for share in drawn.stages:
        stage = trace.stages[share.stage]
        replica = f" (replica {stage.replica})" if stage.replica else ""
        table.add_row(
            Text(f"{stage.index}{replica}", COLOURS[share.stage % len(COLOURS)]),
            Text(harmless(stage.node) or "gone"),
            f"{stage.first_layer}-{stage.last_layer}",
            f"{share.compute_ms:.2f} ms",
            f"{share.wire_ms:.2f} ms",
            f"{share.queue_ms:.2f} ms",
            f"{share.share:.0%}",
        )
    return table


def _summary_table(drawn: Waterfall) -> Table:
    table = _table("steps")
    for name in ("number", "mean", "p50", "p90", "p99", "slowest"):
        table.add_column(name, justify="right")
    for one in drawn.summaries:
        times = (one.mean_ms, one.p50_ms, one.p90_ms, one.p99_ms, one.slowest_ms)
        table.add_row(one.kind, f"{one.count:,}", *(f"{value:.1f} ms" for value in times))
    return table


def _clock_errors(stages: Sequence[TracedStage]) -> str:
    off = [stage for stage in stages if stage.clock_error_us]
    if not off:
        return ""
    each = ", ".join(
        f"stage {stage.index} ±{stage.clock_error_us / US_PER_MS:.2f} ms" for stage in off
    )
    return f"Times of stages on other machines may be off: {each}."


def _rate(request: RequestSummary) -> str:
    """Tokens a second after the first one."""
    first_us, end_us = request.first_token_us, request.ended_us
    if first_us is None or end_us is None or end_us <= first_us:
        return NOTHING
    rate = (request.num_generated_tokens - 1) / ((end_us - first_us) / US_PER_S)
    return f"{rate:.1f}" if rate > 0 else NOTHING


def _seconds(time_us: int | None) -> str:
    return NOTHING if time_us is None else f"{time_us / US_PER_S:.3f} s"


def _ms(time_us: int) -> str:
    return f"{time_us / US_PER_MS:.1f} ms"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%H:%M:%S")


def _tone(outcome: str) -> str:
    return {"running": "cyan", "error": "red", "cancelled": "yellow"}.get(outcome, "green")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table
