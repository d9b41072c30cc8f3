"""Ternary checkpoints run on a CPU node, and give what a plain ternary product gives."""

import json
from pathlib import Path

import mlx.core as mx
import mlx_lm.utils
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models.bitlinear_layers import BitLinear

import tbcluster
from tbcluster.cluster.cluster import Cluster
from tests.doubles import architectures
from tests.doubles.checkpoints import write_tokenizer

PROMPT = [5, 6, 7, 8]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "bitnet"
    folder.mkdir()
    model = architectures.build("bitnet")
    tensors = architectures.random_parameters(model)
    # A ternary scale as in the released checkpoints: one number a matrix, in bfloat16.
    scales = {k: mx.array([0.05 + 0.01 * i]) for i, k in enumerate(tensors) if "weight_scale" in k}
    mx.save_safetensors(
        str(folder / "model.safetensors"),
        {
            name: (array if array.dtype == mx.uint8 else array.astype(mx.bfloat16))
            for name, array in {**tensors, **scales}.items()
        },
        {"format": "mlx"},
    )
    config = {**architectures.CONFIGS["bitnet"], "eos_token_id": 1, "max_position_embeddings": 512}
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, config["vocab_size"], 512)
    return folder


@pytest.mark.skipif(mx.metal.is_available(), reason="mlx-lm's own kernel runs on Metal")
def test_two_stages_equal_a_plain_ternary_product(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Cluster(checkpoint, stages=2) as cluster:
        got = [
            (r.token, r.logprobs.logprob)
            for r in tbcluster.stream_generate(
                cluster, cluster.tokenizer, PROMPT, max_tokens=8, num_logprobs=0
            )
            if r.logprobs is not None
        ]
    expected = greedy_with_plain_products(checkpoint, monkeypatch, len(got))
    assert [token for token, _ in got] == [token for token, _ in expected]
    for (_, ours), (_, theirs) in zip(got, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3)


def greedy_with_plain_products(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, num_tokens: int
) -> list[tuple[int, float]]:
    """mlx-lm's own model with its kernel written out in float32."""

    def product(self: BitLinear, x: mx.array, packed: mx.array) -> mx.array:
        digits = [((packed >> shift) & 3).astype(mx.float32) - 1 for shift in (0, 2, 4, 6)]
        weights = mx.concatenate(digits, axis=0)
        scale = self.weight_scale.astype(mx.float32)
        return (x @ weights.T) * (1 / scale if self.invert_weight_scales else scale)

    monkeypatch.setattr(BitLinear, "execute_matmul_kernel", product)
    model, _ = mlx_lm.utils.load_model(checkpoint)
    assert any(array.dtype == mx.uint8 for _, array in tree_flatten(model.parameters()))
    model.set_dtype(mx.float32)
    tokens = list(PROMPT)
    found = []
    for _ in range(num_tokens):
        logits = model(mx.array([tokens]))[0, -1]
        logprobs = logits - mx.logsumexp(logits)
        best = int(mx.argmax(logprobs).item())
        found.append((best, float(logprobs[best].item())))
        tokens.append(best)
    return found
