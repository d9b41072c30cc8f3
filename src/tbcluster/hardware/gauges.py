"""What changes every second on this machine, read in a thread of its own."""

import logging
import sys
import threading
import time
from collections.abc import Callable

import psutil

from tbcluster.hardware.memory import left_bytes
from tbcluster.hardware.power.meter import Meter, Reading
from tbcluster.hardware.power.opening import open_lasting_meter
from tbcluster.machine import Gauges

logger = logging.getLogger(__name__)

EVERY_S = 1.0


class GaugeReader:
    """Reads all gauges at once; a millisecond at most, and not more often than needed.

    Args:
        meter: What counts joules; None for nothing.
        clock: Unix time, seconds.
    """

    def __init__(self, meter: Meter | None, clock: Callable[[], float] = time.time) -> None:
        self._meter = meter
        self._clock = clock
        psutil.cpu_percent()  # tells of the time since it was last asked

    def read(self) -> Gauges:
        """What they say now."""
        said = self._meter.read() if self._meter is not None else Reading()
        known = [t for t in (said.temperature_c, hottest_sensor()) if t is not None]
        return Gauges(
            at=self._clock(),
            available_bytes=left_bytes(),
            cpu_load=psutil.cpu_percent() / 100,
            watts=said.watts,
            joules=said.joules,
            power_source=self._meter.source if said.joules is not None and self._meter else None,
            temperature_c=max(known, default=None),
        )

    def close(self) -> None:
        """Close the meter."""
        if self._meter is not None:
            self._meter.close()


class GaugeWatch:
    """A thread that reads the gauges once a second and keeps the newest: asking for them costs
    nothing."""

    def __init__(
        self,
        open_reader: Callable[[], GaugeReader] | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        self._open_reader = open_reader or (lambda: GaugeReader(open_lasting_meter()))
        self._every_s = every_s
        self._newest: Gauges | None = None
        self._has_failed = False
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gauges", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._is_ended.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def newest(self) -> Gauges | None:
        """What was read last; None before that."""
        return self._newest

    def _run(self) -> None:
        try:
            reader = self._open_reader()
        except Exception:  # a machine without gauges serves all the same
            logger.exception("this machine's gauges cannot be read")
            return
        try:
            while not self._is_ended.is_set():
                self._newest = self._read(reader)
                self._is_ended.wait(self._every_s)
        finally:
            reader.close()

    def _read(self, reader: GaugeReader) -> Gauges | None:
        try:
            return reader.read()
        except Exception:  # the next look may see more
            if not self._has_failed:
                logger.exception("this machine's gauges cannot be read")
            self._has_failed = True
            return None


def hottest_sensor() -> float | None:
    """Degrees Celsius, of what Linux shows; None where it shows nothing, and on other systems."""
    if sys.platform != "linux":
        return None
    groups = psutil.sensors_temperatures().values()
    return max((one.current for group in groups for one in group if one.current > 0), default=None)
