"""`tbcluster bench`: how fast a server answers, this project's or any other of OpenAI's API."""

import asyncio
import platform
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from tbcluster.cli import bench_chart, bench_view
from tbcluster.cli.loading import console
from tbcluster.cli.models import DEFAULT_URL, Key, Url
from tbcluster.cli.rack import output
from tbcluster.cli.terminal import harmless
from tbcluster.errors import EndpointError, OutputFileError
from tbcluster.loadtest.client import LoadClient
from tbcluster.loadtest.plan import Api, LoadPlan
from tbcluster.loadtest.report import Earlier, Facts, ratios, read_earlier, to_json
from tbcluster.loadtest.run import LoadTest, OnProgress

INTERRUPTED = 130
MOST_SEEDS = 2**31


def bench(
    url: Url = DEFAULT_URL,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The model's name there; the first loaded if left out."),
    ] = None,
    key: Key = None,
    streams: Annotated[
        str, typer.Option(metavar="S,...", help="Clients at once, each number in turn.")
    ] = "1,4,16",
    prompt_tokens: Annotated[
        str, typer.Option(metavar="P,...", help="Tokens of prompts, each number in turn.")
    ] = "64,512",
    output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 128,
    warm_up: Annotated[
        int, typer.Option(min=0, help="Requests before each measurement that do not count.")
    ] = 1,
    repeats: Annotated[
        int, typer.Option(min=1, help="Requests of each client, one after another.")
    ] = 3,
    shared_prefix: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="The first N tokens of all prompts are the same."),
    ] = 0,
    api: Annotated[
        Api, typer.Option(help="The endpoint; auto takes chats where completions are refused.")
    ] = "auto",
    seed: Annotated[
        int | None,
        typer.Option(
            help="Of the prompts' random words. A server that has seen them knows them; left out, "
            "one is drawn.",
            show_default=False,
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write all figures and samples there."),
    ] = None,
    chart: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw a chart there: .svg, .png or .pdf."),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Show ratios against an earlier --json file."),
    ] = None,
) -> None:
    """Measure a running server of OpenAI's API: tokens per second, time to the first token."""
    plan = LoadPlan(
        _numbers("--streams", streams),
        _numbers("--prompt-tokens", prompt_tokens),
        output_tokens,
        repeats,
        warm_up,
        shared_prefix,
        random.randrange(MOST_SEEDS) if seed is None else seed,  # noqa: S311
    )
    earlier = None if compare is None else _read(compare)
    _check_files(json_file, chart)
    client = LoadClient(url, key, model, api)
    with _bar() as on_progress:
        test = LoadTest(plan, client, on_progress)
        trouble = _run(test)
    if isinstance(trouble, EndpointError) and not test.measured:
        raise trouble
    facts = Facts(
        client.url,
        client.server,
        client.model,
        client.api,
        datetime.now(UTC).astimezone(),
        f"{platform.system()} {platform.release()} {platform.machine()}",
        trouble is None,
    )
    if json_file is not None:
        _write(json_file, to_json(facts, plan, test.measured))
    if test.measured:
        output().print(bench_view.report(facts, plan, test.measured))
        if earlier is not None:
            console.print(Text(f"Against {harmless(str(compare))}:"))
            output().print(bench_view.ratio_table(ratios(earlier, test.measured)))
        if chart is not None:
            bench_chart.draw(chart, facts, test.measured)
    if isinstance(trouble, EndpointError):
        raise trouble
    if trouble is not None:
        raise typer.Exit(INTERRUPTED)
    if not any(one.summary.num_good for one in test.measured):
        raise EndpointError(f"{client.url} answered no request: see above what it said")


def _run(test: LoadTest) -> EndpointError | KeyboardInterrupt | None:
    """What ended it early; what was measured until then is in the test all the same."""
    try:
        asyncio.run(test.run())
    except (EndpointError, KeyboardInterrupt) as trouble:
        return trouble
    return None


@contextmanager
def _bar() -> Iterator[OnProgress]:
    """Shows what is measured while the block runs, on a terminal."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bars:
        task = bars.add_task("", total=None)
        yield lambda what, done, total: bars.update(
            task, description=what, completed=done, total=total
        )


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter(
            f"{text!r}: give numbers from 1, such as 1,4,16", param_hint=option
        )
    return tuple(sorted(set(numbers)))


def _check_files(json_file: Path | None, chart: Path | None) -> None:
    """What could not be written is said before the long measurement."""
    if chart is not None:
        bench_chart.check(chart)
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise OutputFileError(f"--json {json_file}: there is no folder {json_file.parent}")


def _read(path: Path) -> Earlier:
    try:
        return read_earlier(path.read_text())
    except (OSError, ValueError) as error:  # bytes that are no text are a ValueError too
        raise typer.BadParameter(
            f"{path} cannot be read: {error}", param_hint="--compare"
        ) from error


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content)
    except OSError as error:
        raise OutputFileError(f"--json {path} cannot be written: {error.strerror}") from error
