"""Command lines read as the commands themselves read them, without running anything."""

import re
import shlex
from typing import Any

import typer
from typer._click.exceptions import BadOptionUsage, MissingParameter

from benchmarks.__main__ import _parser as bench_parser
from benchmarks.chaos.__main__ import _parser as chaos_parser
from tbcluster.cli.main import app
from tbcluster.cli.service import checked_options
from tbcluster.cluster.service import ServiceKind

# What the scripts hand to others, or do not read.
_PASSED_ON = ("test",)
_WITHOUT_ARGUMENTS = ("lock", "setup")


def words_of(line: str) -> list[str]:
    """A line's words from the command's own name on; comments do not count."""
    words = shlex.split(line, comments=True)
    first = next(
        index for index, word in enumerate(words) if re.search(r"tbcluster$|scripts/", word)
    )
    return [words[first].rpartition("/")[2], *words[first + 1 :]]


def parse(line: str, *, is_spoken: bool = False) -> None:
    """Read a line.

    Args:
        is_spoken: It stands in a sentence, where arguments may be missing and NAME is any name.

    Raises:
        LookupError, UsageError, SystemExit: There is no such command, or it takes no such
            arguments.
    """
    name, *words = words_of(line)
    if name == "serve":
        name, words = "tbcluster", ["serve", *words]
    if name == "tbcluster":
        try:
            _parse_command(words)
        except (MissingParameter, BadOptionUsage):
            if not is_spoken:
                raise
    elif name == "bench":
        is_any = is_spoken and words[:1] == ["NAME"]
        bench_parser().parse_args(words[1:] if is_any else words)
    elif name == "chaos":
        chaos_parser().parse_args(words)
    elif name == "first_token":
        if len(words) > 1:
            raise LookupError(f"first_token takes one repository, not {words}")
    elif name in _WITHOUT_ARGUMENTS and words:
        raise LookupError(f"{name} takes no arguments: {words}")
    elif name not in (*_PASSED_ON, *_WITHOUT_ARGUMENTS, "train_demo_model.py"):
        raise LookupError(f"No such script: {name}")


def _parse_command(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    names: list[str] = []
    while words and words[0] in getattr(command, "commands", {}):
        names.append(words[0])
        command = command.commands[words.pop(0)]
    if words == ["--version"] and not names:
        return
    if hasattr(command, "commands") and not names:
        raise LookupError(f"No such command: {' '.join(words)}")
    if hasattr(command, "commands") and words and not words[0].startswith("-"):
        raise LookupError(f"No such command: {' '.join([*names, *words])}")
    if hasattr(command, "commands") and not words:
        return
    context = command.make_context(" ".join(names), words)
    if names == ["service", "install"]:
        checked_options(ServiceKind(context.params["kind"]), context.params["arguments"] or [])
