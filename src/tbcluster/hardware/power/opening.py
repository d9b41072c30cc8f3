"""Which meter this machine has."""

import sys
from collections.abc import Callable
from pathlib import Path

from tbcluster.hardware.power.lasting import LastingMeter
from tbcluster.hardware.power.macmon import open_macmon
from tbcluster.hardware.power.meter import Meter, Together
from tbcluster.hardware.power.nvidia import open_nvidia
from tbcluster.hardware.power.rapl import open_rapl
from tbcluster.hardware.power.zeus import open_zeus

Find = Callable[[str], str | None]


def open_lasting_meter(open_one: Callable[[], Meter | None] | None = None) -> Meter | None:
    """This machine's, opened again whenever it falls silent; None where there is none."""
    open_one = open_one or open_meter
    meter = open_one()
    return None if meter is None else LastingMeter(meter, open_one)


def open_meter(
    root: Path = Path("/"), system: str = sys.platform, find: Find | None = None
) -> Meter | None:
    """The best that there is; None where nothing tells. It may start a tool that goes on running.

    Args:
        root: Folder of sys.
        system: As `sys.platform` has it.
        find: Gives the path of a tool.
    """
    if system == "darwin":
        return open_zeus() or open_macmon(find)
    found: list[Meter] = []
    if (rapl := open_rapl(root)) is not None:
        found.append(rapl)
    gpus = open_nvidia(find) if find is not None else open_nvidia()
    if gpus is not None:
        found.append(gpus)
    return found[0] if len(found) == 1 else Together(tuple(found)) if found else None
