"""Stands in for the commands of a service manager: records them and answers as told."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tbcluster.cluster.service.performing import Ran

Answer = Callable[[tuple[str, ...]], Ran]


class RecordingRunner:
    """Answers every command by `answer`, or with success; remembers what files there were."""

    def __init__(self, answer: Answer = lambda command: Ran(0, ""), watched: Path | None = None):
        self.commands: list[tuple[str, ...]] = []
        self.in_terminal: list[tuple[str, ...]] = []
        self.files: list[list[str]] = []
        self.terminal_status = 0
        self._answer = answer
        self._watched = watched

    def run(self, command: Sequence[str]) -> Ran:
        self.commands.append(tuple(command))
        if self._watched is not None:
            self.files.append(sorted(path.name for path in self._watched.iterdir()))
        return self._answer(tuple(command))

    def run_in_terminal(self, command: Sequence[str]) -> int:
        self.in_terminal.append(tuple(command))
        return self.terminal_status
