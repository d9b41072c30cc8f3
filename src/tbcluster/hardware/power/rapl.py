"""RAPL: the energy counters of x86 processors, as Linux shows them.

Documentation/power/powercap/powercap.rst of the kernel: a domain counts microjoules in `energy_uj`
and begins again from zero after `max_energy_range_uj`. A package holds cores and graphics; memory
("dram") counts apart where the processor has that domain. Since Linux 5.10 only root may read the
counters, unless the administrator lets others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tbcluster.hardware.power.meter import Pace, Reading

FOLDER = "sys/class/powercap"
# "intel-rapl-mmio" shows the same package a second time; "psys" holds packages too.
DOMAINS = "intel-rapl:*"
COUNTED = ("package-", "dram")
MICROJOULES = 1e6


@dataclass(slots=True)
class _Domain:
    folder: Path
    range_uj: int
    last_uj: int


class Rapl:
    """Packages and memory of this machine, together."""

    source = "rapl"

    def __init__(self, domains: list[_Domain], clock: Callable[[], float] = time.monotonic) -> None:
        self._domains = domains
        self._pace = Pace(clock)
        self._joules = 0.0

    def read(self) -> Reading:
        """What was counted since it was opened; nothing once a counter cannot be read any more."""
        for domain in self._domains:
            now_uj = _number(domain.folder / "energy_uj")
            if now_uj is None:
                return Reading()
            # It is read far more often than it wraps: a minute or so at full load, at the least.
            grown_uj = now_uj - domain.last_uj
            self._joules += (
                grown_uj if grown_uj >= 0 else grown_uj + domain.range_uj
            ) / MICROJOULES
            domain.last_uj = now_uj
        return Reading(self._joules, self._pace.watts(self._joules))

    def close(self) -> None:
        """Nothing is held."""


def open_rapl(root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> Rapl | None:
    """None where there are no such counters, or one of them may not be read.

    Args:
        root: Folder of sys.
    """
    domains: list[_Domain] = []
    for folder in sorted((root / FOLDER).glob(DOMAINS)):
        if not _text(folder / "name").startswith(COUNTED):
            continue
        range_uj = _number(folder / "max_energy_range_uj")
        last_uj = _number(folder / "energy_uj")
        if range_uj is None or last_uj is None:
            return None
        domains.append(_Domain(folder, range_uj, last_uj))
    return Rapl(domains, clock) if domains else None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
