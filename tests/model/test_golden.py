"""Sharded output equals unsharded output, for every architecture and every legal cut.

Each test runs prompt chunks of 7, 6 and 3 tokens and then 3 decode steps through stages that hold
NaN in place of every parameter they should not need, with the values between stages going through
the real wire format; the logits must equal those of the unsharded model to the last bit.
"""

from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_unflatten
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.model.arrays import from_boundary, to_boundary
from tbcluster.model.bitnet import repack_bitlinear
from tbcluster.model.caches import state_arrays
from tbcluster.model.slicing import HiddenStates, StageModel
from tbcluster.model.trace import ModelTrace
from tbcluster.model.tracer import needed_parameters, trace
from tbcluster.wire.messages import Step, decode_step, encode_step
from tests.doubles import architectures, muse_spark
from tests.doubles.stages import evaluate

STEP_LENGTHS = (7, 6, 3, 1, 1, 1)
UNCUTTABLE = {"iquestloopcoder": "its forward pass never calls its layers as modules"}
# Of the 126 architectures of mlx-lm 0.32.2: one cannot be cut, one cannot be run at all.
NAMES = sorted(set(architectures.CONFIGS) - set(architectures.EXCLUDED))
CUTTABLE = [name for name in NAMES if name not in UNCUTTABLE]
# Random weights overflow in this one's attention: its logits hold NaN in the same places.
MAY_BE_NAN = {"phi3small"}


@pytest.fixture(autouse=True)
def stand_in_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    if mx.metal.is_available():
        return
    for name, function in muse_spark.STAND_INS.items():
        monkeypatch.setattr(f"mlx_lm.models.muse_spark.{name}", function)


def build(name: str) -> nn.Module:
    model = architectures.build(name)
    repack_bitlinear(model, mx.float32)
    return model


def token_steps(name: str) -> list[mx.array]:
    rng = np.random.default_rng(1)
    top = 30 if name == "nanochat" else 90
    return [mx.array(rng.integers(0, top, (1, n)).astype(np.int32)) for n in STEP_LENGTHS]


def unsharded_logits(
    name: str, model: nn.Module, num_steps: int = len(STEP_LENGTHS)
) -> list[mx.array]:
    cache = make_prompt_cache(model)
    outputs = []
    for tokens in token_steps(name)[:num_steps]:
        output = model(tokens, cache=cache)
        logits = output[0] if isinstance(output, tuple) else output
        mx.eval(logits, [state_arrays(entry) for entry in cache])
        outputs.append(logits)
    return outputs


def build_stage(
    name: str, parameters: dict[str, mx.array], traced: ModelTrace, start: int, end: int
) -> StageModel:
    model = build(name)
    placeholders = [(path, mx.zeros(a.shape, a.dtype)) for path, a in parameters.items()]
    model.update(tree_unflatten(placeholders))
    needed = needed_parameters(model, traced, start, end)
    kept = {path: a if path in needed else poison(a) for path, a in parameters.items()}
    return StageModel(architectures.load(model, kept), traced, start, end)


def poison(array: mx.array) -> mx.array:
    is_floating = mx.issubdtype(array.dtype, mx.floating)
    return mx.full(array.shape, float("nan"), array.dtype) if is_floating else mx.zeros_like(array)


def over_the_wire(hidden: HiddenStates) -> HiddenStates:
    frames = encode_step(Step(epoch=1, step_id=1, boundary=to_boundary(hidden)))
    boundary = decode_step([bytes(frame) for frame in frames]).boundary
    assert boundary is not None
    return from_boundary(boundary)


def sharded_logits(name: str, stages: list[StageModel]) -> list[mx.array]:
    caches = [stage.make_cache() for stage in stages]
    outputs = []
    for tokens in token_steps(name):
        hidden = result = None
        for visit in range(len(stages[0].segments)):
            for stage, cache in zip(stages, caches, strict=True):
                result = stage.forward(tokens, cache, hidden, visit)
                evaluate(result, cache)
                hidden = over_the_wire(result) if isinstance(result, HiddenStates) else None
        assert isinstance(result, mx.array)
        outputs.append(result)
    return outputs


def three_way(legal: tuple[int, ...], num_layers: int) -> list[list[int]]:
    """One cut into three, near the thirds, where there are two legal cuts."""
    if len(legal) < 2:
        return []
    first = min(legal[:-1], key=lambda cut: abs(cut - num_layers / 3))
    later = [cut for cut in legal if cut > first]
    return [[first, min(later, key=lambda cut: abs(cut - 2 * num_layers / 3))]]


@pytest.mark.parametrize("name", CUTTABLE)
def test_every_legal_cut_is_exact(name: str) -> None:
    model = build(name)
    parameters = architectures.random_parameters(model)
    expected = unsharded_logits(name, architectures.load(model, parameters))
    if name not in MAY_BE_NAN:
        assert all(mx.isfinite(logits).all().item() for logits in expected)
    traced = trace(build(name))
    assert traced.legal_cuts, traced.uncuttable_because
    num_layers = traced.num_layers
    cuts = [[cut] for cut in traced.legal_cuts] + three_way(traced.legal_cuts, num_layers)
    for inner in cuts:
        bounds = [0, *inner, num_layers]
        stages = [
            build_stage(name, parameters, traced, start, end) for start, end in pairwise(bounds)
        ]
        for step, (got, want) in enumerate(
            zip(sharded_logits(name, stages), expected, strict=True)
        ):
            equal = mx.array_equal(got, want, equal_nan=name in MAY_BE_NAN).item()
            assert equal, f"{name} cut at {inner}: step {step} differs"


@pytest.mark.parametrize("name", sorted(UNCUTTABLE))
def test_an_uncuttable_model_says_why_and_runs_whole(name: str) -> None:
    traced = trace(build(name))
    assert traced.legal_cuts == ()
    assert traced.uncuttable_because == UNCUTTABLE[name]
    model = build(name)
    parameters = architectures.random_parameters(model)
    expected = unsharded_logits(name, architectures.load(model, parameters))
    stage = build_stage(name, parameters, traced, 0, traced.num_layers)
    for got, want in zip(sharded_logits(name, [stage]), expected, strict=True):
        assert mx.array_equal(got, want).item()


def test_the_golden_test_covers_mlx_lm() -> None:
    assert len(architectures.CONFIGS) == 126
    assert len(CUTTABLE) >= 124


def test_layers_that_share_caches_are_never_parted() -> None:
    # gemma3n's last four of ten layers reuse the KV of earlier ones.
    assert trace(build("gemma3n")).legal_cuts == (1, 2, 3, 4)
