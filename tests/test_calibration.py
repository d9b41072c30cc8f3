"""The fit of the cost model's coefficients, on measurements that were made with known ones."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.calibration.fit import errors_of, fitted, left_out
from benchmarks.calibration.predict import predicted
from benchmarks.calibration.rows import Measured, families, read_rows
from tbcluster.cluster.chip_speeds import MLX, Coefficients

TRUE = Coefficients(
    bandwidth_share=0.8,
    two_dies_share=0.9,
    layer_s=150e-6,
    tflops_share=0.6,
    packed_share=0.9,
    vector_share=0.4,
    stage_s=2e-3,
)
COLLECTIVE_S = 180e-6


def entry(model: str, chip: str, gpu_cores: int, **fields: object) -> dict[str, object]:
    return {
        "category": "single",
        "model": model,
        "chip": chip,
        "gpu_cores": gpu_cores,
        "nodes": 1,
        "gen_tokens": 100,
        "decode_tps": 1.0,
        "prefill_tps": 1.0,
        **fields,
    }


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Measured]:
    """As published, but with the speeds that the true coefficients give, 1 % of noise on them."""
    entries = [
        entry("LLaMA 7B v2", chip, cores, quant=quant, software="llama.cpp", prompt_tokens=512)
        for chip, cores in (("M2 Max", 38), ("M4 Max", 40))
        for quant in ("F16", "Q4_0")
    ]
    mlx = {"software": "mlx 0.30", "quant": "Q4"}
    for model in ("Meta-Llama-3.1-8B-Instruct", "Qwen2.5-32B"):
        for bits in (4.0, 6.0):
            entries += [
                entry(model, "M3 Ultra", 80, bits=bits, prompt_tokens=tokens, **mlx)
                for tokens in (1024, 65536)
            ]
    group = {"nodes": 2, "bits": 4.0, "prompt_tokens": 1024, **mlx}
    entries += [
        entry("Qwen2.5-32B", "M3 Ultra", 80, parallelism=how, **group)
        for how in ("pipeline", "tensor")
    ]
    path = tmp_path_factory.mktemp("calibration") / "measured.json"
    path.write_text(json.dumps(entries))
    noise = random.Random(3)
    return [
        replace(
            row,
            decode_tps=predicted(row, TRUE, COLLECTIVE_S, "decode") * noise.uniform(0.99, 1.01),
            prefill_tps=predicted(row, TRUE, COLLECTIVE_S, "prefill") * noise.uniform(0.99, 1.01),
        )
        for row in read_rows(path)
    ]


def test_the_fit_says_what_was_measured(rows: list[Measured]) -> None:
    sets = fitted(rows)
    for kind in ("decode", "prefill"):
        before = errors_of([row for row in rows if row.is_mlx], sets.with_mlx(MLX), kind)
        after = errors_of(rows, sets, kind)
        assert max(after) < 5
        assert max(after) < max(before)
    assert sets.mlx.tflops_share == pytest.approx(TRUE.tflops_share, rel=0.05)
    assert sets.mlx.packed_share == pytest.approx(TRUE.packed_share, rel=0.05)
    assert sets.mlx.layer_s == pytest.approx(TRUE.layer_s, rel=0.3)
    assert sets.mlx.stage_s == pytest.approx(TRUE.stage_s, rel=0.3)
    assert sets.collective_s[2] == pytest.approx(COLLECTIVE_S, rel=0.3)


def test_models_are_left_out_one_by_one(rows: list[Measured]) -> None:
    few = [row for row in rows if row.prompt_tokens < 2000]
    decode, prefill = left_out(few)
    # Tensor parallel rows of the only model that has them have nothing to be judged by.
    assert len(decode) == len(prefill) == len(few) - 1


def test_families_are_by_program_and_model_or_chip(rows: list[Measured]) -> None:
    assert list(families(rows)) == [
        "llama.cpp, M2",
        "llama.cpp, M4",
        "MLX, Meta-Llama-3.1-8B-Instruct",
        "MLX, Qwen2.5-32B",
        "MLX, pipeline parallel",
        "MLX, tensor parallel",
    ]


def test_what_is_not_known_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "measured.json"
    other = entry("GPT-2", "M3 Ultra", 80, bits=4.0, prompt_tokens=1, quant="Q4", software="mlx")
    path.write_text(json.dumps([other, {"category": "network", "chip": "M4 Pro"}]))
    assert read_rows(path) == []
