"""A module of the benchmarks in a process of its own, spoken to in lines."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Self


class LineProcess:
    """The process, as a context manager; it ends with its input.

    Args:
        module: What `python -m` runs; it answers in lines of JSON.
        prefix: What comes before Python: a command that runs it elsewhere.
        env: Its environment; None for this one.
    """

    def __init__(
        self,
        module: str,
        *arguments: str,
        prefix: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def write(self, line: str) -> None:
        """Say a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def read(self) -> Any:
        """Wait for a line and return what it says."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
