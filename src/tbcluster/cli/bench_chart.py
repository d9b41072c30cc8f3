"""A picture of what `tbcluster bench` has measured."""

from collections.abc import Sequence
from pathlib import Path

from tbcluster.cli import charts
from tbcluster.loadtest.report import Facts
from tbcluster.loadtest.run import Measured

check = charts.check


def draw(path: Path, facts: Facts, measured: Sequence[Measured]) -> None:
    """Throughput against clients, and the time to the first token against the prompt's length."""
    plot = charts.pyplot()
    size = (charts.WIDTH_INCHES, 4)
    figure, (left, right) = plot.subplots(1, 2, figsize=size, layout="constrained")
    summaries = [one.summary for one in measured]
    for length in sorted({one.cell.prompt_tokens for one in summaries}):
        cells = [one for one in summaries if one.cell.prompt_tokens == length]
        left.plot(
            [one.cell.streams for one in cells],
            [one.output_tokens_per_s for one in cells],
            "o-",
            label=f"{length:,} prompt tokens",
        )
    for streams in sorted({one.cell.streams for one in summaries}):
        cells = [one for one in summaries if one.cell.streams == streams and one.first_token_s]
        right.plot(
            [one.cell.prompt_tokens for one in cells],
            [one.first_token_s.p50 for one in cells if one.first_token_s],
            "o-",
            label=f"{streams} {'client' if streams == 1 else 'clients'}",
        )
    left.set(xlabel="clients at once", title="tokens/s, all together")
    right.set(xlabel="prompt tokens", title="first token, median, seconds")
    for axis in (left, right):
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(f"{facts.model} at {facts.url}, {facts.date:%Y-%m-%d}")
    charts.save(plot, figure, path)
