"""Sampling defaults from a model's generation_config.json."""

from typing import Any

import pytest

from tbcluster.core import SamplingParams
from tbcluster.server.intake import model_defaults


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, SamplingParams(temperature=1.0)),
        ({"do_sample": False, "temperature": 0.6}, SamplingParams(temperature=0.0)),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20},
            SamplingParams(temperature=0.6, top_p=0.95, top_k=20),
        ),
        (
            {"temperature": "hot", "top_p": None, "top_k": -1, "min_p": True},
            SamplingParams(temperature=1.0),
        ),
    ],
)
def test_values_out_of_range_suggest_nothing(
    config: dict[str, Any], expected: SamplingParams
) -> None:
    assert model_defaults(config) == expected
