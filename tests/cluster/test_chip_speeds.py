"""Speeds of machines that nobody has measured, against what others have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.chip_speeds import (
    ASSUMED_CHIPS,
    assumed_speed,
    catalogue_speed,
)
from tbcluster.hardware.chips import find_chip
from tbcluster.planner.nodes import NodeSpeed, SpeedSource
from tbcluster.planner.weight_kinds import bits_per_weight

NUM_LAYERS, NUM_PARAMETERS = 32, 6.74e9
KINDS = ["float32", "bfloat16", "float16", "4-bit/64", "8-bit/32", "mxfp4", "mxfp8", "nvfp4"]


def speed_of(name: str, gpu_cores: int, kind: str) -> NodeSpeed:
    chip = find_chip(name, gpu_cores)
    assert chip is not None
    return catalogue_speed(chip, kind)


@pytest.mark.parametrize(
    ("chip", "gpu_cores", "kind", "tokens_per_s"),
    [
        # Decode of LLaMA 7B, llama.cpp's discussion #4167.
        ("M1 Pro", 16, "float16", 12.75),
        ("M2 Max", 38, "float16", 24.65),
        ("M3 Max", 40, "8-bit/32", 42.75),
        ("M2 Ultra", 76, "float16", 41.02),
        ("M4 Max", 40, "float16", 31.64),
        ("M4", 10, "4-bit/32", 24.11),
    ],
)
def test_decode_of_a_7b_model(chip: str, gpu_cores: int, kind: str, tokens_per_s: float) -> None:
    speed = speed_of(chip, gpu_cores, kind)
    weights = NUM_PARAMETERS * bits_per_weight(kind) / 8
    token_s = weights * speed.rates[0][1] + NUM_LAYERS * speed.layer_s
    assert 1 / token_s == pytest.approx(tokens_per_s, rel=0.2)


def test_a_prompt_is_bounded_by_multiplications() -> None:
    """512 tokens on an M2 Max: 755 tokens/s, the same table."""
    speed = speed_of("M2 Max", 38, "float16")
    byte_s = dict(speed.rates)[512]
    assert 512 / (2 * NUM_PARAMETERS * byte_s) == pytest.approx(755, rel=0.15)


def test_matrix_units_are_for_half_precision() -> None:
    half, full = (speed_of("M5 Max", 40, kind) for kind in ("float16", "float32"))
    # Bytes of a weight are 2 and 4: 60 TFLOPS and 18.4.
    assert full.rates[-1][1] * 4 / (half.rates[-1][1] * 2) == pytest.approx(60 / 18.4)
    assert full.rates[0] == half.rates[0]


@given(st.sampled_from(KINDS), st.sampled_from(sorted(ASSUMED_CHIPS)))
def test_more_rows_take_longer_and_never_more_than_in_proportion(kind: str, backend: str) -> None:
    speed = assumed_speed(kind, backend)
    assert speed.source is SpeedSource.ASSUMED
    for (few, few_s), (many, many_s) in zip(speed.rates, speed.rates[1:], strict=False):
        assert few < many
        assert 0 < few_s <= many_s <= few_s * many / few * 1.0001
