"""The commands of the README and of the documents on racks, plans and models exist, with their
options."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tbcluster.cli.main import app
from tbcluster.cli.service import checked_options
from tbcluster.cluster.service import ServiceKind

ROOT = Path(__file__).parent.parent.parent


def commands() -> Iterator[str]:
    """Every command that is printed, in a block or within a sentence."""
    for file in (
        "README.md",
        "docs/rack.md",
        "docs/planning.md",
        "docs/simulating.md",
        "docs/models.md",
        "configs/README.md",
    ):
        text = (ROOT / file).read_text()
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        lines = [line.strip() for block in blocks for line in block.splitlines()]
        if file != "README.md":  # whose table names commands without what they have to be given
            lines += re.findall(
                r"`(tbcluster [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
            )
        yield from (line for line in lines if re.match(r"(sudo )?tbcluster ", line))


def parse(words: list[str]) -> list[str]:
    """The names of the command and its parents.

    Raises:
        LookupError, UsageError: There is no such command, or it takes no such arguments.
    """
    command: Any = typer.main.get_command(app)
    names: list[str] = []
    while words and words[0] in getattr(command, "commands", {}):
        names.append(words[0])
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands") and words and not words[0].startswith("-"):
        raise LookupError(f"No such command: {words[0]}")
    context = command.make_context(" ".join(names), words)
    if names == ["service", "install"]:
        checked_options(ServiceKind(context.params["kind"]), context.params["arguments"] or [])
    return names


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_printed_command_is_real(line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[words.index("tbcluster") + 1 :]
    if words != ["--version"]:
        assert parse(words)


def test_there_are_many() -> None:
    assert len(set(commands())) > 25


@pytest.mark.parametrize("line", ["start", "join", "agent --model x", "service install agent x"])
def test_others_would_be_found(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|Missing|unexpected"):
        parse(line.split())
