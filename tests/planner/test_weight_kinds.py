"""What a weight takes, by its kind."""

import pytest

from tbcluster.planner.weight_kinds import bits_per_weight


@pytest.mark.parametrize(
    ("kind", "bits"),
    [
        ("float32", 32),
        ("bfloat16", 16),
        ("4-bit/64", 4.5),
        ("8-bit/32", 9),
        ("mxfp4", 4.25),
        ("ternary", 2),
        ("fp7", 16),  # one that came later counts as half precision
    ],
)
def test_bits_of_a_weight(kind: str, bits: float) -> None:
    assert bits_per_weight(kind) == bits
