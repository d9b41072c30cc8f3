"""Pictures, by matplotlib where it is installed."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tbcluster.errors import OutputFileError

if TYPE_CHECKING:
    from tbcluster.simulator.planned import Simulated

KINDS = (".png", ".svg", ".pdf")
DECODE, PROMPT = "#3b78b5", "#e08a2e"
# So many steps of a stage are told apart in a picture.
SHOWN_STEPS = 60
# The window begins where the pipeline has long been full.
WARM_SHARE = 0.4
ROW_INCHES, WIDTH_INCHES = 0.35, 10.0


def check(path: Path) -> None:
    """Whether a picture can be drawn there.

    Raises:
        OutputFileError: Its kind is unknown, its folder is not there, or matplotlib is not.
    """
    if path.suffix.lower() not in KINDS:
        raise OutputFileError(f"{path}: a chart's name ends in {', '.join(KINDS)}")
    if not path.parent.is_dir():
        raise OutputFileError(f"{path}: there is no folder {path.parent}")
    pyplot()


def draw_timeline(path: Path, found: Sequence["Simulated"]) -> None:
    """What each stage computed and when, in a window of the run in which all are at work."""
    plot = pyplot()
    heights = [1 + len(one.result.stages) for one in found]
    figure, axes = plot.subplots(
        len(found),
        1,
        figsize=(WIDTH_INCHES, 1 + ROW_INCHES * 2 * sum(heights)),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    for axis, one in zip(axes[:, 0], found, strict=True):
        _timeline(axis, one)
    save(plot, figure, path)


def draw_sweep(path: Path, found: Sequence[Sequence["Simulated"]], clients: Sequence[int]) -> None:
    """Throughput, and the time to the first token, against clients; a line for each rack."""
    plot = pyplot()
    figure, (left, right) = plot.subplots(1, 2, figsize=(WIDTH_INCHES, 4), layout="constrained")
    for rack in found:
        results = [one.result for one in rack]
        left.plot(clients, [r.tokens_per_s for r in results], "o-", label=rack[0].name)
        firsts = [r.first_token.p50_s if r.first_token else None for r in results]
        right.plot(clients, firsts, "o-", label=rack[0].name)
    for axis, title in ((left, "tokens/s, all together"), (right, "first token, median, seconds")):
        axis.set_xscale("log", base=2)
        axis.set_xticks(clients, [str(number) for number in clients])
        axis.set_ylim(bottom=0)
        axis.set(xlabel="clients", title=title)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(found[0][0].planned.plan.model)
    save(plot, figure, path)


def _timeline(axis: Any, one: "Simulated") -> None:
    spans = one.result.spans
    stages = one.result.stages
    labels = {
        (stage.replica, stage.stage, stage.node): f"{stage.node} {stage.layers}" for stage in stages
    }
    rows = {key: row for row, key in enumerate(labels)}
    if spans:
        begin_s, end_s = window([(span.start_s, span.end_s) for span in spans], len(rows))
        for span in spans:
            row = rows.get((span.replica, span.stage, span.node))
            if row is None or span.end_s < begin_s or span.start_s > end_s:
                continue
            colour = PROMPT if span.is_prompt else DECODE
            axis.barh(row, span.end_s - span.start_s, left=span.start_s, color=colour, height=0.8)
        axis.set_xlim(begin_s, end_s)
    axis.set_yticks(list(rows.values()), list(labels.values()))
    axis.invert_yaxis()
    axis.set(
        xlabel="seconds",
        title=f"{one.name}: decode steps (blue) and prompts (orange) of each stage",
    )


def window(spans: Sequence[tuple[float, float]], num_stages: int) -> tuple[float, float]:
    """The part of a run that is drawn: some steps of each stage, once the pipeline is full."""
    first = int(WARM_SHARE * len(spans))
    last = min(len(spans) - 1, first + SHOWN_STEPS * max(1, num_stages))
    return spans[first][0], spans[last][1]


def pyplot() -> Any:
    """matplotlib, drawing to files.

    Raises:
        OutputFileError: It is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise OutputFileError(
            f"charts need matplotlib, which is not installed: {sys.executable} -m pip install "
            "'matplotlib>=3.9'"
        ) from error
    mpl.use("Agg")
    from matplotlib import pyplot as plot

    return plot


def save(plot: Any, figure: Any, path: Path) -> None:
    """Write a picture.

    Raises:
        OutputFileError: The file cannot be written.
    """
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise OutputFileError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        plot.close(figure)
