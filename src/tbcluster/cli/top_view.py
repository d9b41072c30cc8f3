"""One view of a rack as a picture for a terminal. Pure: data in, renderables out."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tbcluster.cli.terminal import harmless
from tbcluster.server.live.view import LiveEvent, LiveLink, LiveModel, LiveNode, LiveStage, LiveView

NOTHING = "-"
BLOCKS = " ▁▂▃▄▅▆▇█"
BAR_CELLS = 12
SPARK_CELLS = 40
# Narrower terminals are shown fewer columns.
WIDE, MEDIUM = 118, 84
TONES = {
    "ok": "green",
    "ready": "green",
    "online": "green",
    "good": "green",
    "info": "cyan",
    "starting": "yellow",
    "recovering": "yellow",
    "loading": "yellow",
    "fetching": "yellow",
    "warning": "yellow",
}
UNITS = ("B", "kB", "MB", "GB", "TB")
UNIT = 1000


def picture(view: LiveView, rates: Sequence[float], width: int, notice: str = "") -> RenderableType:
    """All of a view, the most telling first: what is below the terminal's last line is cut off.

    Args:
        rates: Tokens per second of the last seconds, oldest first.
        width: Of the terminal, in cells.
        notice: A line about the connection.
    """
    parts: list[RenderableType] = [head(view, rates, width)]
    if notice:
        parts.append(Text(harmless(notice), style="bold red"))
    parts += [stage_table(model, width) for model in view.models]
    parts.append(node_table(view, width))
    if view.links:
        parts.append(link_table(view.links))
    if view.events:
        parts.append(event_lines(view.events))
    return Group(*parts)


def head(view: LiveView, rates: Sequence[float], width: int) -> Text:
    """How it is, and the figures of now."""
    text = Text.assemble(
        ("tbcluster ", "bold"),
        (harmless(view.cluster_name or ""), ""),
        " ",
        (harmless(view.state), f"bold {_tone(view.state)}"),
        (f" {harmless(view.doing)}" if view.doing and view.state != "ok" else "", "yellow"),
        "\n",
    )
    facts = [
        f"{number(view.tokens_per_s)} tokens/s",
        f"prompts {number(view.prompt_tokens_per_s)}/s",
        f"{view.num_running} running",
        f"{view.num_waiting} waiting",
        watts(view.watts, is_estimate=view.is_estimate),
        f"{number(view.joules_per_token)} J/token",
    ]
    text.append("  ".join(facts))
    if width >= WIDE:
        text.append("  ").append(sparkline(rates), "cyan")
    return text


def stage_table(model: LiveModel, width: int) -> RenderableType:
    """What a model's stages did in the last second, or how far they are loaded."""
    title = Text.assemble(
        (harmless(model.name), "bold"),
        " ",
        (harmless(model.state), _tone(model.state)),
        f"  {number(model.tokens_per_s)} tokens/s",
        f"  {model.num_running} running, {model.num_waiting} waiting",
        (f"  {harmless(model.doing)}" if model.doing else "", "yellow"),
    )
    if model.error:
        title.append(f"\n{harmless(model.error)}", "red")
    table = _table("stage", "node", "layers", "state")
    for name in ("compute", "wire", "wait"):
        table.add_column(name, justify="right")
    if width >= MEDIUM:
        table.add_column("busy", justify="right")
        table.add_column("")
    if width >= WIDE:
        table.add_column("KV", justify="right")
    for stage in model.stages:
        table.add_row(*_stage_cells(stage, width))
    return Group(Text(), title, table)


def _stage_cells(stage: LiveStage, width: int) -> list[Text | str]:
    share = stage.loaded_bytes / stage.total_bytes if stage.total_bytes else None
    state = Text(harmless(stage.state), _tone(stage.state))
    if stage.state in ("loading", "fetching") and share is not None:
        state.append(f" {bar(share)} {percent(share)}")
    cells: list[Text | str] = [
        f"{stage.index}",
        Text(harmless(stage.node)),
        f"{stage.first_layer}-{stage.last_layer}",
        state,
        ms(stage.compute_ms),
        ms(stage.wire_ms),
        ms(stage.wait_ms),
    ]
    if width >= MEDIUM:
        cells += [percent(stage.load), Text(bar(stage.load), "blue")]
    if width >= WIDE:
        cells.append(f"{size(stage.kv_used_bytes)} of {size(stage.kv_budget_bytes)}")
    return cells


def node_table(view: LiveView, width: int) -> RenderableType:
    """The machines."""
    table = _table("node", "state")
    if width >= WIDE:
        table.add_column("chip")
    for name in ("weights", "KV", "free", "memory"):
        table.add_column(name, justify="right")
    if width >= MEDIUM:
        for name in ("busy", "CPU", "watts", "heat"):
            table.add_column(name, justify="right")
    for node in view.nodes:
        table.add_row(*_node_cells(node, width))
    return Group(Text(), table)


def _node_cells(node: LiveNode, width: int) -> list[Text | str]:
    name = harmless(node.name) + (" (head)" if node.is_head else "")
    state = "drained" if node.is_drained else "lost" if node.state == "offline" else node.state
    cells: list[Text | str] = [Text(name, "bold"), Text(harmless(state), _tone(node.state))]
    if width >= WIDE:
        cells.append(Text(harmless(node.chip or node.system or NOTHING)))
    cells += [
        size(node.weight_bytes),
        size(node.kv_used_bytes),
        size(node.available_bytes),
        size(node.memory_bytes),
    ]
    if width >= MEDIUM:
        heat = NOTHING if node.temperature_c is None else f"{node.temperature_c:.0f} °C"
        is_estimate = node.power_source == "estimate"
        cells += [
            percent(node.load),
            percent(node.cpu_load),
            watts(node.watts, is_estimate=is_estimate),
            heat,
        ]
    return cells


def link_table(links: Iterable[LiveLink]) -> RenderableType:
    """How the machines are joined."""
    table = _table("link", "kind", "state")
    table.add_column("speed", justify="right")
    table.add_column("round trip", justify="right")
    for link in links:
        state = "cut" if not link.is_up else "in use" if link.is_used else "up"
        trip = NOTHING if link.round_trip_us is None else f"{link.round_trip_us:.0f} us"
        speed = NOTHING if link.gbps is None else f"{number(link.gbps)} Gb/s"
        table.add_row(
            Text(harmless(f"{link.source} - {link.target}")),
            Text(harmless(link.kind)),
            Text(state, "red" if not link.is_up else "green" if link.is_used else ""),
            speed,
            trip,
        )
    return Group(Text(), table)


def event_lines(events: Sequence[LiveEvent]) -> Text:
    """What happened, newest first."""
    text = Text("\n")
    for event in reversed(events):
        at = datetime.fromtimestamp(event.at).strftime("%H:%M:%S")
        text.append(f"{at} ", "dim").append(f"{harmless(event.text)}\n", _tone(event.level))
    text.rstrip()
    return text


def sparkline(rates: Sequence[float]) -> str:
    """The newest rates as small bars, each against the highest."""
    newest = rates[-SPARK_CELLS:]
    most = max(newest, default=0.0)
    if most <= 0:
        return BLOCKS[1] * len(newest)
    return "".join(BLOCKS[1 + round(rate / most * (len(BLOCKS) - 2))] for rate in newest)


def bar(share: float) -> str:
    """A share of 1 as a bar."""
    full = round(min(1.0, max(0.0, share)) * BAR_CELLS)
    return "█" * full + "░" * (BAR_CELLS - full)


def number(value: float | None) -> str:
    """With as many digits as are worth reading."""
    if value is None:
        return NOTHING
    decimals = 0 if abs(value) >= 100 or value == 0 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{decimals}f}"


def ms(value: float | None) -> str:
    """Milliseconds."""
    return NOTHING if value is None else f"{number(value)} ms"


def percent(share: float | None) -> str:
    """A share of 1."""
    return NOTHING if share is None else f"{share * 100:.0f} %"


def watts(value: float | None, *, is_estimate: bool) -> str:
    """Watts, with a tilde where they are no measurement."""
    return f"{NOTHING} W" if value is None else f"{'~' if is_estimate else ''}{number(value)} W"


def size(num_bytes: int | None) -> str:
    """Bytes in a unit that suits them."""
    if num_bytes is None:
        return NOTHING
    value, unit = float(num_bytes), 0
    while value >= UNIT and unit < len(UNITS) - 1:
        value, unit = value / UNIT, unit + 1
    return f"{num_bytes} B" if unit == 0 else f"{number(value)} {UNITS[unit]}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, no_wrap=True)
    return table


def _tone(word: str) -> str:
    return TONES.get(word, "red")
