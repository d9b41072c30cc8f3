"""Chips by name: Apple's and some GPUs. What they are made of, from `chips.toml`."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

CATALOGUE = Path(__file__).with_name("chips.toml")
MAKERS = ("Apple ", "NVIDIA GeForce ", "NVIDIA ")
Backend = Literal["Metal GPU", "CUDA GPU", "CPU"]


@dataclass(frozen=True, slots=True)
class Chip:
    """A chip with so many GPU cores, and the machine that it is usually in.

    Attributes:
        gpu_cores: 0 where nobody counts them.
        bandwidth_gbs: Of its memory, GB/s.
        tflops: Of its GPU, float32.
        tensor_tflops: Of its matrix units, float16; None where it has none.
        memory_gb: The most that it is sold with; None where that is not known.
        backend: What MLX computes with there.
        idle_w, max_w: At the wall; None where they are not known.
        thunderbolt: 3, 4 or 5; None for a machine without.
        ports: How many of those; None where that is not known.
        prices: (GB of memory, USD), ascending.
    """

    name: str
    gpu_cores: int
    bandwidth_gbs: float
    tflops: float
    tensor_tflops: float | None = None
    memory_gb: float | None = None
    backend: Backend = "Metal GPU"
    idle_w: float | None = None
    max_w: float | None = None
    thunderbolt: int | None = None
    ports: int | None = None
    prices: tuple[tuple[float, float], ...] = ()

    def price_usd(self, memory_gb: float) -> float | None:
        """Of the machine with so much memory; None where nobody has told."""
        return dict(self.prices).get(memory_gb)


def find_chip(
    name: str,
    gpu_cores: int | None = None,
    memory_gb: float | None = None,
    own: Iterable[Chip] = (),
) -> Chip | None:
    """The chip of this name ("M4 Pro", with or without its maker); None for one that is not known.

    Args:
        gpu_cores: Tells apart the chips of one name. Where it is not known, or is none of theirs,
            the chip is the slowest of its name that is sold with so much memory.
        own: Others than the catalogue's, which come first.
    """
    short = next((name.removeprefix(maker) for maker in MAKERS if name.startswith(maker)), name)
    mine = [chip for chip in own if chip.name in (name, short)]
    found = mine or [chip for chip in catalogue() if chip.name == short]
    exact = [chip for chip in found if chip.gpu_cores == gpu_cores]
    large = [chip for chip in found if (chip.memory_gb or 0) >= (memory_gb or 0)]
    return min(exact or large or found, key=lambda chip: chip.gpu_cores, default=None)


def near_chips(name: str, own: Iterable[Chip] = ()) -> list[str]:
    """Names of known chips that look like this one."""
    names = list(dict.fromkeys(chip.name for chip in (*own, *catalogue())))
    folded = {known.casefold(): known for known in names}
    return [folded[near] for near in get_close_matches(name.casefold(), folded, n=3)]


@cache
def catalogue() -> tuple[Chip, ...]:
    """All that come with tbcluster."""
    rows = tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))["chips"]
    per_core: dict[tuple[str, str], float] = {}
    for row in rows:
        for field in ("tflops", "tensor_tflops"):
            if field in row and "gpu_cores" in row:
                per_core[row["name"], field] = row[field] / row["gpu_cores"]
    return tuple(chip_of(row, per_core) for row in rows)


def chip_of(row: Mapping[str, Any], per_core: Mapping[tuple[str, str], float]) -> Chip:
    """A table of `chips.toml`; what it lacks of FLOPS follows from its cores."""
    name, gpu_cores = str(row["name"]), int(row.get("gpu_cores") or 0)

    def flops(field: str) -> float | None:
        if row.get(field) is not None:
            return float(row[field])
        rate = per_core.get((name, field))
        return rate * gpu_cores if rate is not None else None

    tflops = flops("tflops")
    assert tflops is not None, f"no tflops for {name}"  # noqa: S101 - others are checked before
    prices = sorted((float(gb), float(usd)) for gb, usd in (row.get("prices") or {}).items())
    rest = {
        field: row.get(field) for field in ("memory_gb", "idle_w", "max_w", "thunderbolt", "ports")
    }
    return Chip(
        name,
        gpu_cores,
        float(row["bandwidth_gbs"]),
        tflops,
        flops("tensor_tflops"),
        backend=row.get("backend") or "Metal GPU",
        prices=tuple(prices),
        **rest,
    )
