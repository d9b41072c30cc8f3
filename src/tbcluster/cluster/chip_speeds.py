"""How fast a machine computes that nobody has measured: by its chip, or assumed. Pure."""

from dataclasses import dataclass

from tbcluster.hardware.chips import Chip
from tbcluster.planner.nodes import NodeSpeed, SpeedSource
from tbcluster.planner.weight_kinds import bits_per_weight

ROWS = (1, 2, 4, 8, 16, 64, 512, 2048)


@dataclass(frozen=True, slots=True)
class Coefficients:
    """What software makes of a chip's figures.

    Attributes:
        bandwidth_share: Of the memory's bandwidth, in reading weights and KV caches.
        two_dies_share: Of that, on chips that are two dies (Ultra): each has half of the memory.
        layer_s: Seconds of each dense layer and step beside that: kernels started.
        tflops_share: Of TFLOPS, in prompts.
        packed_share: Of that, with weights whose bits divide no byte: 3, 5 or 6.
        vector_share: Of the rate of prompts, in the attention of decode steps: a query for each
            head alone, which fills no matrix.
        stage_s: Seconds of a stage's software in each step.
    """

    bandwidth_share: float
    two_dies_share: float
    layer_s: float
    tflops_share: float
    packed_share: float
    vector_share: float
    stage_s: float


# Fitted to published runs of MLX on an M3 Ultra, and of llama.cpp on chips of one die, which tell
# what those reach of their bandwidth (`./scripts/bench calibration`).
MLX = Coefficients(
    bandwidth_share=0.90,
    two_dies_share=0.90,
    layer_s=60e-6,
    tflops_share=0.78,
    packed_share=0.96,
    vector_share=0.55,
    stage_s=1.15e-3,
)
# Nobody knows the chip: the slowest Mac; a CPU core's worth of MLX; a small NVIDIA GPU.
ASSUMED_CHIPS = {
    "Metal GPU": Chip("?", 8, 68, 2.6),
    "CUDA GPU": Chip("?", 0, 300, 20),
    "CPU": Chip("?", 0, 3.0, 0.005),
}
TWO_DIES = "Ultra"
# Bits of affine weights that no word holds a whole number of.
ODD_BITS = ("3-bit", "5-bit", "6-bit")


def catalogue_speed(chip: Chip, kind: str, coefficients: Coefficients = MLX) -> NodeSpeed:
    """By the chip's figures, for weights of this kind (`ModelProfile.weight_kind`)."""
    return _speed(chip, kind, coefficients, SpeedSource.CATALOGUE)


def assumed_speed(kind: str, backend: str = "CPU") -> NodeSpeed:
    """Of a machine with MLX's backend of this name, of which nothing else is known."""
    chip = ASSUMED_CHIPS.get(backend, ASSUMED_CHIPS["CPU"])
    return _speed(chip, kind, MLX, SpeedSource.ASSUMED)


def _speed(chip: Chip, kind: str, by: Coefficients, source: SpeedSource) -> NodeSpeed:
    """A step is bounded by its memory traffic or by its multiplications."""
    dies = by.two_dies_share if chip.name.endswith(TWO_DIES) else 1.0
    byte_s = 1 / (chip.bandwidth_gbs * 1e9 * by.bandwidth_share * dies)
    is_half = kind != "float32"
    tflops = (chip.tensor_tflops if is_half else None) or chip.tflops
    share = by.tflops_share * (by.packed_share if kind.startswith(ODD_BITS) else 1.0)
    flop_s = 1 / (tflops * 1e12 * share)
    row_s = 2 * 8 / bits_per_weight(kind) * flop_s
    rates = tuple((rows, max(byte_s, rows * row_s)) for rows in ROWS)
    # Vectors do not use matrix units.
    vector_flop_s = 1 / (chip.tflops * 1e12 * by.tflops_share * by.vector_share)
    return NodeSpeed(rates, by.layer_s, by.stage_s, byte_s, source, vector_flop_s)
