"""How many cores of which kind a Mac has."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from tbcluster.hardware.macos.sysctl import sysctl_number

_PROCESSORS = re.compile(r"proc (\d{1,5})((?::\d{1,5})*)")


@dataclass(frozen=True, slots=True)
class Cores:
    """Physical cores; the kinds are None where macOS does not tell them apart."""

    total: int
    performance: int | None = None
    efficiency: int | None = None


def cores_of_sysctl(values: Mapping[str, str]) -> Cores | None:
    """By `hw.perflevelN`, fastest first. Newer chips have levels Super and Performance, or a third
    level: all but Efficiency are fast. Before macOS 12 had names, the last of two was the slow one.
    """
    total = sysctl_number(values, "hw.physicalcpu") or sysctl_number(values, "hw.ncpu")
    if total is None:
        return None
    levels: list[tuple[str, int]] = []
    for level in count():
        cores = sysctl_number(values, f"hw.perflevel{level}.physicalcpu")
        if cores is None:
            break
        levels.append((values.get(f"hw.perflevel{level}.name", ""), cores))
    if not levels:
        return Cores(total)
    if all(name for name, _ in levels):
        slow = sum(cores for name, cores in levels if name == "Efficiency")
    else:
        slow = levels[-1][1] if len(levels) > 1 else 0
    return Cores(total, sum(cores for _, cores in levels) - slow, slow)


def cores_of_profiler(number_processors: object) -> Cores | None:
    """By SPHardwareDataType's `number_processors`, "proc total:performance:efficiency".

    There may be a fourth field for a third kind, whose place differs between systems ("24:16:8:0",
    "18:6:0:12" with 6 Super and 12 Performance cores, "12:0:8:4"): of the captures known, one of
    the kinds is always zero, and its place tells the meaning of the others.
    """
    found = _PROCESSORS.fullmatch(number_processors) if isinstance(number_processors, str) else None
    if found is None:
        return None
    total = int(found[1])
    match [int(field) for field in found[2].split(":")[1:]]:
        case [fast, slow] | [fast, slow, 0] | [0, fast, slow]:
            return Cores(total, fast, slow)
        case [first, 0, third]:
            return Cores(total, first + third, 0)
        case _:
            return Cores(total)
