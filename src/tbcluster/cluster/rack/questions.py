"""Commands on the head node that wait for their answer. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tbcluster.machine import RackView

# What a command may wait for: macOS's own tools take seconds, measuring many links longer.
INSPECT_TIMEOUT_S = 15.0
MEASURE_TIMEOUT_S = 120.0

Answer = Callable[[RackView], None]


@dataclass
class _Question:
    answer: Answer
    unseen: set[str]
    measures: bool
    deadline: float


class Questions:
    """All that are open."""

    def __init__(self) -> None:
        self._open: list[_Question] = []

    def add(self, answer: Answer, to_inspect: Iterable[str], *, measures: bool, now: float) -> None:
        """A question is answered when all these nodes have looked at their machines, and, with
        `measures`, no link is being measured any more."""
        patience = MEASURE_TIMEOUT_S if measures else INSPECT_TIMEOUT_S
        self._open.append(_Question(answer, set(to_inspect), measures, now + patience))

    def looked(self, node_id: str) -> None:
        """A node has looked, or is gone."""
        for question in self._open:
            question.unseen.discard(node_id)

    def due(self, now: float, *, is_measuring: bool) -> list[Answer]:
        """Whom to answer now."""
        due = [
            question
            for question in self._open
            if now > question.deadline
            or not (question.unseen or (question.measures and is_measuring))
        ]
        self._open = [question for question in self._open if question not in due]
        return [question.answer for question in due]
