"""What a file holds, as it changes."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from tbcluster.errors import TbclusterError

logger = logging.getLogger(__name__)

# A changed file is seen this long after, at the latest.
RELOAD_S = 1.0

Content = TypeVar("Content")


class Followed(Generic[Content]):
    """What a file holds now; a change is seen `RELOAD_S` later at the latest. Thread-safe.

    Args:
        load: Reads and parses the file.
        version: Differs once it has changed.
        kept: What stays as it was while the file cannot be used, for the log.

    Raises (from the constructor):
        TbclusterError: As `load`. Later ones are logged.
    """

    def __init__(
        self,
        load: Callable[[], Content],
        version: Callable[[], tuple[int, ...] | None],
        kept: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._read_version = version
        self._kept = kept
        self._clock = clock
        self._lock = threading.Lock()
        # The version first: what changes while the file is read is then read again.
        self._version = version()
        self._looked_at = clock()
        self._content = load()

    def now(self) -> Content:
        """What the file holds."""
        with self._lock:
            self._follow()
            return self._content

    def _follow(self) -> None:
        now = self._clock()
        if now - self._looked_at < RELOAD_S:
            return
        self._looked_at = now
        version = self._read_version()
        if version == self._version:
            return
        self._version = version
        try:
            self._content = self._load()
        except TbclusterError as error:
            logger.error("%s; %s stay valid", error, self._kept)
