"""Commands of `tbcluster`, run to their end."""

import os
import subprocess
import sys
from collections.abc import Mapping

from typer.testing import CliRunner

from tbcluster.cli.main import app
from tbcluster.errors import TbclusterError

COMMAND_S = 120.0


def run(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """As a user runs them: in a process, which imports for a second before it does anything."""
    return subprocess.run(
        [sys.executable, "-m", "tbcluster", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=COMMAND_S,
        check=False,
        env={**os.environ, **(env or {})},
    )


def run_here(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """The same in this process, for what ends by itself, reads its environment when it is asked and
    handles no signals. An error is told as `tbcluster.cli.main.run` tells it; one that is none of
    ours is raised.
    """
    done = CliRunner().invoke(app, arguments, env=env, input=stdin)
    error, status, said = done.exception, done.exit_code, done.stderr
    if isinstance(error, TbclusterError):
        status, said = 1, f"{said}tbcluster: {error}\n"
    elif error is not None and not isinstance(error, SystemExit):
        raise error
    return subprocess.CompletedProcess(arguments, status, done.stdout, said)
