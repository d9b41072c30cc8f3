"""Runs the system's own tools, to read what they print."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Output:
    """What a tool printed.

    Attributes:
        text: Its standard output, whole or as far as it came.
        problem: Why that may be less than was asked for, a line for people; None if it is not.
        is_absent: Whether this system has no such tool.
    """

    text: str
    problem: str | None = None
    is_absent: bool = False


def run_tool(command: Sequence[str], timeout_s: float) -> Output:
    """Run a tool by its absolute path, without a shell and in English; never raises."""
    name = Path(command[0]).name
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            # Tools of another language or with other numerals would not be understood.
            env={**os.environ, "LC_ALL": "C", "LANG": "C"},
        )
    except FileNotFoundError:
        return Output("", f"{name}: {command[0]} does not exist", is_absent=True)
    except subprocess.TimeoutExpired:
        return Output("", f"{name}: no answer within {timeout_s:g} s")
    except OSError as error:
        return Output("", f"{name}: {error.strerror or error}")
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode == 0:
        return Output(text)
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return Output(text, f"{name}: {said[-1] if said else f'exit status {done.returncode}'}")


def run_tools(commands: Mapping[str, Sequence[str]], timeout_s: float) -> dict[str, Output]:
    """Run them all at once: together they take as long as the slowest."""
    with ThreadPoolExecutor(max_workers=len(commands)) as pool:
        running = {
            name: pool.submit(run_tool, command, timeout_s) for name, command in commands.items()
        }
        return {name: future.result() for name, future in running.items()}
