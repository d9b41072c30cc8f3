"""From appended tokens to what listeners are told. Text is made while the stages compute."""

import logging
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from tbcluster.core import FinishReason, SampledToken
from tbcluster.engine.sequence import Sequence
from tbcluster.engine.step_log import ERROR, STOP
from tbcluster.errors import StageError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Emission(NamedTuple):
    """A token that was appended and must still be turned into text. (There is one per token of
    every stream: a frozen dataclass would take ten times as long to make.)"""

    sequence: Sequence
    sampled: SampledToken
    num_generated: int
    finish: FinishReason | None


class Emitter:
    """Holds tokens until there is time to turn them into text.

    Args:
        end: Called with a sequence that its text has ended, and its outcome: a stop text, or a
            tokenizer's failure.
    """

    def __init__(self, end: Callable[[Sequence, str], None], clock: Callable[[], float]) -> None:
        self._end = end
        self._clock = clock
        self._emissions: list[_Emission] = []

    def add(self, sequence: Sequence, sampled: SampledToken, finish: FinishReason | None) -> None:
        """A token was appended to a sequence."""
        self._emissions.append(_Emission(sequence, sampled, sequence.num_generated, finish))

    def discard(self, request_id: str) -> None:
        """Say no more about a request."""
        self._emissions = [
            item for item in self._emissions if item.sequence.request.request_id != request_id
        ]

    def emit(self) -> None:
        """Tell the listeners of everything that was added."""
        # Taken out first: one that fails must not be tried again while the engine stops.
        emissions, self._emissions = self._emissions, []
        for item in emissions:
            self._emit_one(item)

    def _emit_one(self, item: _Emission) -> None:
        sequence, finish = item.sequence, item.finish
        assert sequence.text is not None  # noqa: S101 - it has started
        try:
            text, stop = sequence.text.add(item.sampled.token, finish)
        except (LookupError, TypeError, ValueError) as error:
            # A tokenizer that lacks the token must not take the other requests down.
            self._end(sequence, ERROR)
            reason = f"token {item.sampled.token} has no text in this tokenizer: {error}"
            tell(sequence.listener, StageError(reason))
            return
        if stop is not None:
            finish = FinishReason.STOP
            self._end(sequence, STOP)
        output = sequence.output(
            text, item.sampled, self._clock(), finish, item.num_generated, stop
        )
        tell(sequence.listener, output)


def tell(listener: Callable[[T], None], message: T) -> None:
    """A listener belongs to a caller: its failure is logged and stays its own."""
    try:
        listener(message)
    except Exception:  # the caller's code may raise anything, and other requests must go on
        logger.exception("a request's listener failed")
