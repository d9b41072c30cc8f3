"""How fast a machine computes that nobody has measured: by its chip, or assumed. Pure."""

from tbcluster.hardware.chips import Chip
from tbcluster.planner.nodes import NodeSpeed, SpeedSource
from tbcluster.planner.weight_kinds import bits_per_weight

ROWS = (1, 2, 4, 8, 16, 64, 512, 2048)
# Fitted to decode of 7B models in float16, 8 and 4 bits on 26 Apple chips, M1 to M5 Max (llama.cpp
# discussion #4167): seconds a token = bytes / (share x bandwidth) + layers x LAYER_S. Medians; the
# shares lie between 0.74 and 1.01, the seconds between 17 and 264 us.
BANDWIDTH_SHARE = 0.92
LAYER_S = 165e-6
# Of TFLOPS in a prompt of 512 tokens, the same table: 0.60 to 0.77, with matrix units 0.72 to 0.73.
TFLOPS_SHARE = 0.70
# Published hops of pipelines of Macs take 1.07 to 1.53 ms, of which 0.3 are the wire's.
STAGE_S = 0.8e-3
# Nobody knows the chip: the slowest Mac; a CPU core's worth of MLX; a small NVIDIA GPU.
ASSUMED_CHIPS = {
    "Metal GPU": Chip("?", 8, 68, 2.6),
    "CUDA GPU": Chip("?", 0, 300, 20),
    "CPU": Chip("?", 0, 3.0, 0.005),
}


def catalogue_speed(chip: Chip, kind: str) -> NodeSpeed:
    """By the chip's figures, for weights of this kind (`ModelProfile.weight_kind`)."""
    return _speed(chip, kind, SpeedSource.CATALOGUE)


def assumed_speed(kind: str, backend: str = "CPU") -> NodeSpeed:
    """Of a machine with MLX's backend of this name, of which nothing else is known."""
    chip = ASSUMED_CHIPS.get(backend, ASSUMED_CHIPS["CPU"])
    return _speed(chip, kind, SpeedSource.ASSUMED)


def _speed(chip: Chip, kind: str, source: SpeedSource) -> NodeSpeed:
    """A step is bounded by its memory traffic or by its multiplications."""
    byte_s = 1 / (chip.bandwidth_gbs * 1e9 * BANDWIDTH_SHARE)
    is_half = kind != "float32"
    tflops = (chip.tensor_tflops if is_half else None) or chip.tflops
    row_s = 2 * 8 / bits_per_weight(kind) / (tflops * 1e12 * TFLOPS_SHARE)
    rates = tuple((rows, max(byte_s, rows * row_s)) for rows in ROWS)
    return NodeSpeed(rates, LAYER_S, STAGE_S, byte_s, source)
