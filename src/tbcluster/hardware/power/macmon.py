"""macmon, an external tool for Macs that needs no root: `macmon pipe` prints a JSON object a line.

Of its fields (github.com/vladkens/macmon, readme of 0.8.2) `sys_power` is the whole machine's,
where it has that sensor; `all_power` is processor, GPU and Neural Engine, to which memory is added.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tbcluster.hardware.power.line_tool import LineTool
from tbcluster.hardware.power.meter import Reading, WattsCount

INTERVAL_MS = 1000
# Where Homebrew puts it: services have a short PATH.
FOLDERS = ("/opt/homebrew/bin", "/usr/local/bin")


@dataclass(frozen=True, slots=True)
class MacmonLine:
    """What one line says."""

    watts: float | None
    temperature_c: float | None


class Macmon:
    """The whole machine."""

    source = "macmon"

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._count = WattsCount(clock)
        self._temperature_c: float | None = None
        self._lock = threading.Lock()
        self._tool = LineTool([path, "pipe", "-i", str(INTERVAL_MS)], self._take)

    def read(self) -> Reading:
        """What its lines have said so far; nothing once they stop."""
        with self._lock:
            return self._count.reading(self._temperature_c)

    def close(self) -> None:
        """End it."""
        self._tool.close()

    def _take(self, line: str) -> None:
        said = parse_macmon(line)
        if said is None:
            return
        with self._lock:
            self._temperature_c = said.temperature_c
            if said.watts is not None:
                self._count.add(said.watts)


def open_macmon(
    find: Callable[[str], str | None] | None = None, clock: Callable[[], float] = time.monotonic
) -> Macmon | None:
    """None where it is not installed.

    Args:
        find: Gives the path of a tool.
    """
    path = (find or _find)("macmon")
    if path is None:
        return None
    try:
        return Macmon(path, clock)
    except OSError:
        return None


def parse_macmon(line: str) -> MacmonLine | None:
    """One line; None for what is none."""
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    temperatures = said.get("temp")
    found = _numbers(temperatures, "cpu_temp_avg", "gpu_temp_avg")
    return MacmonLine(_watts(said), max((t for t in found if t > 0), default=None))


def _watts(said: dict[str, object]) -> float | None:
    """Older versions, and machines without the sensor, say 0 or nothing of the whole machine."""
    whole = _numbers(said, "sys_power")
    if whole and whole[0] > 0:
        return whole[0]
    if not _numbers(said, "all_power"):
        return None
    return sum(_numbers(said, "all_power", "ram_power", "gpu_ram_power"))


def _numbers(said: object, *names: str) -> list[float]:
    if not isinstance(said, dict):
        return []
    found = (said.get(name) for name in names)
    return [
        float(value)
        for value in found
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=":".join(FOLDERS))
