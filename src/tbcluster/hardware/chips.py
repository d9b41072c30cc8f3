"""Apple's chips by name: what they are made of, from `chips.toml`."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CATALOGUE = Path(__file__).with_name("chips.toml")
MAKER = "Apple "


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip with so many GPU cores.

    Attributes:
        bandwidth_gbs: Of its memory, GB/s.
        tflops: Of its GPU, float32.
        tensor_tflops: Of its matrix units, float16; None where it has none.
    """

    name: str
    gpu_cores: int
    bandwidth_gbs: float
    tflops: float
    tensor_tflops: float | None = None


def find_chip(name: str, gpu_cores: int | None = None) -> Chip | None:
    """The chip of this name ("M4 Pro", with or without "Apple"); None for one that is not known.

    Args:
        gpu_cores: Tells apart the chips of one name. Where it is not known, or is none of theirs,
            the chip is the slowest of its name.
    """
    short = name.removeprefix(MAKER)
    found = [chip for chip in _catalogue() if chip.name == short]
    exact = [chip for chip in found if chip.gpu_cores == gpu_cores]
    return min(exact or found, key=lambda chip: chip.gpu_cores, default=None)


@cache
def _catalogue() -> tuple[Chip, ...]:
    rows = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))["chips"]
    per_core: dict[tuple[str, str], float] = {}
    for row in rows:
        for field in ("tflops", "tensor_tflops"):
            if field in row:
                per_core[row["name"], field] = row[field] / row["gpu_cores"]
    return tuple(_chip(row, per_core) for row in rows)


def _chip(row: dict[str, float | str], per_core: dict[tuple[str, str], float]) -> Chip:
    name, gpu_cores = str(row["name"]), int(row["gpu_cores"])

    def flops(field: str) -> float | None:
        if field in row:
            return float(row[field])
        rate = per_core.get((name, field))
        return rate * gpu_cores if rate is not None else None

    tflops = flops("tflops")
    assert tflops is not None, f"{CATALOGUE} has no tflops for {name}"  # noqa: S101 - our own file
    return Chip(name, gpu_cores, float(row["bandwidth_gbs"]), tflops, flops("tensor_tflops"))
