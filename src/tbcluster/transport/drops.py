"""Messages that are dropped are counted, and logged without flooding the log."""

import logging

logger = logging.getLogger(__name__)


class Drops:
    """How many messages one socket has dropped; `where` names it for people."""

    def __init__(self, where: str) -> None:
        self.num_messages = 0
        self._where = where
        self._next_logged = 1

    def count(self, why: object) -> None:
        """One more; the first is logged, the tenth, the hundredth and so on."""
        self.num_messages += 1
        if self.num_messages == self._next_logged:
            self._next_logged *= 10
            number = "a message" if self.num_messages == 1 else f"{self.num_messages} messages"
            logger.warning("%s: dropped %s by now: %s", self._where, number, why)
