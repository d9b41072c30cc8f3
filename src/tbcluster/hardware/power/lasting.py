"""A meter that is opened again when it falls silent: its tool was ended, or its driver failed."""

import logging
import time
from collections.abc import Callable

from tbcluster.hardware.power.meter import Meter, Reading

logger = logging.getLogger(__name__)

# A meter is given this long to speak, then opened again, and again after as long.
SILENT_S = 30.0


class LastingMeter:
    """What `reopen` gives, in place of the one before. A meter that was opened again counts from
    zero.

    Args:
        meter: The first one.
        clock: Monotonic, seconds.
    """

    def __init__(
        self,
        meter: Meter,
        reopen: Callable[[], Meter | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = meter.source
        self._meter: Meter | None = meter
        self._reopen = reopen
        self._clock = clock
        self._spoke_at = self._opened_at = clock()
        self._is_told = False

    def read(self) -> Reading:
        """What the meter says now; nothing while it cannot be read."""
        reading = self._read()
        now = self._clock()
        if reading.joules is not None:
            if self._is_told:
                logger.info("%s says again what this machine draws", self.source)
            self._spoke_at, self._is_told = now, False
        elif now - max(self._spoke_at, self._opened_at) >= SILENT_S:
            self._open_again(now)
        return reading

    def close(self) -> None:
        """Close the meter that is open."""
        if self._meter is not None:
            self._meter.close()
            self._meter = None

    def _read(self) -> Reading:
        if self._meter is None:
            return Reading()
        try:
            return self._meter.read()
        except Exception as error:  # foreign code: whatever it raises, the machine serves on
            self._tell(f": {error}")
            return Reading()

    def _open_again(self, now: float) -> None:
        self._tell("")
        self._opened_at = now
        self.close()
        self._meter = self._reopen()

    def _tell(self, why: str) -> None:
        """Once, until it speaks again."""
        if not self._is_told:
            logger.warning(
                "%s no longer says what this machine draws%s; it is opened again every %.0f s",
                self.source,
                why,
                SILENT_S,
            )
        self._is_told = True
