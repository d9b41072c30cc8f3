"""NVIDIA's GPUs, through `nvidia-smi`, which prints a line for each of them every second."""

import math
import shutil
import threading
import time
from collections.abc import Callable

from tbcluster.hardware.power.line_tool import LineTool
from tbcluster.hardware.power.meter import Reading, WattsCount

QUERY = "--query-gpu=index,power.draw,temperature.gpu"
ARGUMENTS = (QUERY, "--format=csv,noheader,nounits", "--loop=1")


class Nvidia:
    """All GPUs of this machine, without what is around them."""

    source = "nvml"

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[int, WattsCount] = {}
        self._temperatures: dict[int, float] = {}
        self._lock = threading.Lock()
        self._tool = LineTool([path, *ARGUMENTS], self._take)

    def read(self) -> Reading:
        """What its lines have said so far; nothing once they stop."""
        with self._lock:
            readings = [count.reading() for count in self._counts.values()]
            hottest = max(self._temperatures.values(), default=None)
        joules = [one.joules for one in readings if one.joules is not None]
        if not joules or len(joules) < len(readings):
            return Reading()
        return Reading(sum(joules), sum(one.watts or 0.0 for one in readings), hottest)

    def close(self) -> None:
        """End it."""
        self._tool.close()

    def _take(self, line: str) -> None:
        said = parse_gpu(line)
        if said is None:
            return
        index, watts, temperature_c = said
        with self._lock:
            self._counts.setdefault(index, WattsCount(self._clock)).add(watts)
            if math.isfinite(temperature_c):
                self._temperatures[index] = temperature_c


def open_nvidia(
    find: Callable[[str], str | None] = shutil.which, clock: Callable[[], float] = time.monotonic
) -> Nvidia | None:
    """None where there is no such tool."""
    path = find("nvidia-smi")
    if path is None:
        return None
    try:
        return Nvidia(path, clock)
    except OSError:
        return None


def parse_gpu(line: str) -> tuple[int, float, float] | None:
    """A GPU's number, watts and degrees, of a line such as "0, 75.32, 31"; None where it does not
    say its watts ("[N/A]"). Degrees that it does not say are NaN."""
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 3:
        return None
    try:
        index, watts = int(fields[0]), float(fields[1])
    except ValueError:
        return None
    try:
        return index, watts, float(fields[2])
    except ValueError:
        return index, watts, math.nan
