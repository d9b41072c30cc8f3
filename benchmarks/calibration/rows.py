"""Published measurements, and the models that they are of."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tbcluster.core import CacheCost
from tbcluster.hardware.chips import Chip, find_chip
from tbcluster.planner.profile import AttentionCost, ModelProfile, PartProfile

GROUP = 64
# llama.cpp's names: blocks of 32 weights with a scale of 16 bits, and no bias.
LLAMA_CPP_KINDS = {"F16": "float16", "Q8_0": "8-bit/32", "Q4_0": "4-bit/32"}
LLAMA_CPP_BITS = {"F16": 16.0, "Q8_0": 8.5, "Q4_0": 4.5}


@dataclass(frozen=True, slots=True)
class Shape:
    """A dense model like Llama."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int


SHAPES = {
    "LLaMA 7B v2": Shape(32, 4096, 11008, 32, 32, 128, 32000),
    "Meta-Llama-3.1-8B-Instruct": Shape(32, 4096, 14336, 32, 8, 128, 128256),
    "Qwen2.5-32B": Shape(64, 5120, 27648, 40, 8, 128, 152064),
    "Llama-3.1-405B-Instruct": Shape(126, 16384, 53248, 128, 8, 128, 128256),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A published measurement of one stream.

    Attributes:
        family: What its errors are listed under.
        decode_tps, prefill_tps: Tokens a second; None where it was not published.
    """

    family: str
    model: str
    kind: str
    bits: float
    chip: Chip
    nodes: int
    parallelism: str
    prompt_tokens: int
    gen_tokens: int
    is_mlx: bool
    decode_tps: float | None
    prefill_tps: float | None

    @property
    def profile(self) -> ModelProfile:
        """What the model asks of a machine."""
        return dense_profile(self.model, self.kind, self.bits)

    @property
    def decode_context(self) -> int:
        """Tokens in the caches halfway through decoding: llama-bench measures pp512 and tg128 apart
        and begins each with empty caches, mlx-lm goes on behind the prompt."""
        return (self.prompt_tokens if self.is_mlx else 0) + self.gen_tokens // 2

    def value(self, what: str) -> float | None:
        """ "decode" or "prefill"."""
        return self.decode_tps if what == "decode" else self.prefill_tps


def read_rows(path: Path) -> list[Measured]:
    """Those of models that are known here on known chips."""
    rows = [_row(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    return [row for row in rows if row is not None]


def families(rows: Sequence[Measured]) -> dict[str, list[Measured]]:
    """By family, in order."""
    found: dict[str, list[Measured]] = {}
    for row in rows:
        found.setdefault(row.family, []).append(row)
    return found


def _row(entry: dict[str, Any]) -> Measured | None:
    model, cores = entry.get("model"), entry.get("gpu_cores")
    chip = find_chip(entry["chip"], cores) if model in SHAPES and entry.get("chip") else None
    if chip is None:
        return None
    is_mlx = str(entry["software"]).startswith("mlx")
    quant = entry["quant"]
    if is_mlx:
        bits = float(entry["bits"])
        kind, packed = f"{bits:.0f}-bit/{GROUP}", bits + 32 / GROUP
    else:
        kind, packed = LLAMA_CPP_KINDS[quant], LLAMA_CPP_BITS[quant]
    how = entry.get("parallelism") or ""
    family = f"llama.cpp, {entry['chip'].split()[0]}" if not is_mlx else f"MLX, {model}"
    if how:
        family = f"MLX, {how} parallel"
    return Measured(
        family=family,
        model=model,
        kind=kind,
        bits=packed,
        chip=chip,
        nodes=entry["nodes"],
        parallelism=how,
        prompt_tokens=entry["prompt_tokens"],
        gen_tokens=entry["gen_tokens"],
        is_mlx=is_mlx,
        decode_tps=entry.get("decode_tps"),
        prefill_tps=entry.get("prefill_tps"),
    )


@cache
def dense_profile(name: str, kind: str, bits: float) -> ModelProfile:
    """A model of one of the shapes with weights of so many bits, scales included."""
    shape = SHAPES[name]
    width = shape.heads * shape.head_dim
    kv_width = shape.kv_heads * shape.head_dim
    weights = shape.hidden * (2 * width + 2 * kv_width) + 3 * shape.hidden * shape.intermediate
    attention = 4 * width
    layer = PartProfile(
        weight_bytes=round(weights * bits / 8),
        flops=2 * weights,
        caches=(CacheCost(0, 2 * 2 * kv_width),),
        attention=AttentionCost(attention, attention),
    )
    table = round(shape.hidden * shape.vocab * bits / 8)
    number = shape.layers * weights + 2 * shape.hidden * shape.vocab
    return ModelProfile(
        name=name,
        architecture="llama",
        layers=(layer,) * shape.layers,
        embedding=PartProfile(table, 0, lookup_bytes=table),
        head=PartProfile(table, 2 * shape.hidden * shape.vocab),
        shared=PartProfile(0, 0),
        hidden_bytes=2 * shape.hidden,
        legal_cuts=tuple(range(1, shape.layers)),
        context_length=1 << 20,
        num_visits=1,
        vocab_size=shape.vocab,
        weight_kind=kind,
        file_bytes=0,
        num_parameters=number,
        active_parameters=number,
    )
