"""Sequences that decode together give what each gives alone, for every architecture.

Prompts of different lengths are prefilled alone and then decode as rows of two lanes, through two
stages: they join and leave, move between the lanes, and one is copied, trimmed and computed again.
All logits are compared with those of the unsharded model and a cache of the sequence's own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.cache import make_prompt_cache

from tbcluster.errors import StageError
from tbcluster.model.bitnet import repack_bitlinear
from tbcluster.model.caches import Cache
from tbcluster.model.rows import (
    RUNS_ALONE,
    can_batch,
    copy_cache,
    extend_rows,
    keep_rows,
    max_trimmable_tokens,
    merge_rows,
    take_row,
    trim_cache,
)
from tbcluster.model.slicing import HiddenStates, StageModel
from tbcluster.model.tracer import trace
from tests.doubles import architectures, muse_spark
from tests.doubles.stages import evaluate

NAMES = sorted(set(architectures.CONFIGS) - set(architectures.EXCLUDED))
NOT_BATCHED = {*RUNS_ALONE, "deepseek_v41", "llama4"}
BATCHED = [name for name in NAMES if name not in NOT_BATCHED]
# Windows are 8 tokens, or 4: some prompts are past them, some reach them while decoding. Those of
# one token join a lane with empty caches.
PROMPT_LENGTHS = (1, 11, 1, 16, 5)
# How many tokens of each are then computed.
NUM_TOKENS = (7, 6, 3, 3, 4)
# Largest difference of logits, relative to their size; other shapes add up in another order.
TOLERANCE = 2e-5
# muse_spark rounds to bfloat16 between its layers.
TOLERANCES = {"muse_spark": 2e-3}

Caches = list[list[Cache]]  # one for each stage


@dataclass(frozen=True)
class Row:
    """A sequence in a lane, and how many tokens after its prompt's last but one it has seen."""

    sequence: int
    position: int = 0


@dataclass(frozen=True)
class Alone:
    """A sequence run with the unsharded model: tokens that went in, logits that came out."""

    tokens: list[int]
    logits: list[mx.array]


@dataclass(frozen=True)
class Subject:
    """An architecture with random weights, and what it gives for each prompt alone."""

    name: str
    model: nn.Module
    parameters: dict[str, mx.array]
    prompts: list[list[int]]
    alone: list[Alone]


@pytest.fixture(scope="module", autouse=True)
def stand_ins() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if not mx.metal.is_available():
            for name, function in muse_spark.STAND_INS.items():
                patch.setattr(f"mlx_lm.models.muse_spark.{name}", function)
        yield


@pytest.fixture(scope="module")
def subject(request: pytest.FixtureRequest, stand_ins: None) -> Subject:
    name: str = request.param
    model = build(name)
    parameters = architectures.random_parameters(model)
    architectures.load(model, parameters)
    rng = np.random.default_rng(1)
    top = 30 if name == "nanochat" else 90
    prompts = [rng.integers(0, top, length).tolist() for length in PROMPT_LENGTHS]
    alone = [run_alone(model, *pair) for pair in zip(prompts, NUM_TOKENS, strict=True)]
    return Subject(name, model, parameters, prompts, alone)


def build(name: str) -> nn.Module:
    model = architectures.build(name)
    repack_bitlinear(model, mx.float32)
    return model


def prefilled(model: nn.Module, prompt: list[int]) -> list[Cache]:
    cache = make_prompt_cache(model)
    if len(prompt) > 1:
        model(mx.array([prompt[:-1]]), cache=cache)
        evaluate(None, cache)
    return cache


def decode(model: nn.Module, cache: list[Cache], token: int) -> mx.array:
    output = model(mx.array([[token]]), cache=cache)
    logits = (output[0] if isinstance(output, tuple) else output)[0, -1]
    evaluate(logits, cache)
    return logits


def run_alone(model: nn.Module, prompt: list[int], num_tokens: int) -> Alone:
    """Greedy decoding."""
    cache = prefilled(model, prompt)
    alone = Alone([prompt[-1]], [])
    for _ in range(num_tokens):
        alone.logits.append(decode(model, cache, alone.tokens[-1]))
        alone.tokens.append(int(mx.argmax(alone.logits[-1]).item()))
    return alone


class Pipeline:
    """The model in two stages, or one if it cannot be cut, and the lanes' logits checked."""

    def __init__(self, subject: Subject) -> None:
        traced = trace(build(subject.name))
        middle = traced.num_layers / 2
        cuts = sorted(traced.legal_cuts, key=lambda cut: abs(cut - middle))[:1]
        bounds = [0, *cuts, traced.num_layers]
        self._subject = subject
        self._stages = [
            StageModel(
                architectures.load(build(subject.name), subject.parameters), traced, start, end
            )
            for start, end in pairwise(bounds)
        ]

    def prefill(self, sequence: int) -> Caches:
        caches = [stage.make_cache() for stage in self._stages]
        prompt = self._subject.prompts[sequence]
        if len(prompt) > 1:
            self._forward([prompt[:-1]], caches)
        return caches

    def step(self, lane: Caches, *rows: Row) -> list[Row]:
        """Decode one token of each row and compare; the rows one position further."""
        alone = self._subject.alone
        logits = self._forward([[alone[r.sequence].tokens[r.position]] for r in rows], lane)
        for row, got in zip(rows, logits[:, -1], strict=True):
            assert_close(got, alone[row.sequence].logits[row.position], self._subject.name, row)
        return [replace(row, position=row.position + 1) for row in rows]

    def _forward(self, tokens: list[list[int]], caches: Caches) -> mx.array:
        hidden = result = None
        for visit in range(len(self._stages[0].segments)):
            for stage, cache in zip(self._stages, caches, strict=True):
                result = stage.forward(mx.array(tokens), cache, hidden, visit)
                evaluate(result, cache)
                hidden = result if isinstance(result, HiddenStates) else None
        assert isinstance(result, mx.array)
        return result


def assert_close(got: mx.array, want: mx.array, name: str, row: Row) -> None:
    allowed = TOLERANCES.get(name, TOLERANCE) * max(1.0, mx.abs(want).max().item())
    difference = mx.abs(got - want).max().item()
    assert difference <= allowed, f"{name}, {row}: off by {difference:.1e}"
    runner_up, top = mx.topk(want, 2).tolist()
    if abs(top - runner_up) > 2 * allowed:
        assert mx.argmax(got).item() == mx.argmax(want).item()


def join(lane: Caches, *singles: Caches) -> Caches:
    return [extend_rows(part, parts) for part, *parts in zip(lane, *singles, strict=True)]


def keep(lane: Caches, *rows: int) -> Caches:
    return [keep_rows(part, rows) for part in lane]


def take(lane: Caches, row: int) -> Caches:
    return [take_row(part, row) for part in lane]


def copy_less(caches: Caches, num_tokens: int) -> Caches:
    copies = [copy_cache(part) for part in caches]
    for part in copies:
        trim_cache(part, num_tokens)
    return copies


@pytest.mark.parametrize("subject", BATCHED, indirect=True)
def test_rows_give_what_they_give_alone(subject: Subject) -> None:
    pipeline = Pipeline(subject)
    a, b, c, d, e = (Row(i) for i in range(len(PROMPT_LENGTHS)))
    own = [pipeline.prefill(i) for i in range(len(PROMPT_LENGTHS))]
    # Two rows without a token yet; two longer ones join.
    first = [merge_rows(parts) for parts in zip(own[0], own[2], strict=True)]
    a, c = pipeline.step(first, a, c)
    first = join(first, own[1], own[3])
    a, c, b, d = pipeline.step(first, a, c, b, d)
    a, c, b, d = pipeline.step(first, a, c, b, d)
    # The longest but one moves to a lane of its own, where another joins it.
    second = take(first, 2)
    first = keep(first, 0, 3)
    (b,) = pipeline.step(second, b)
    a, d = pipeline.step(first, a, d)
    second = join(second, own[4])
    b, e = pipeline.step(second, b, e)
    b, e = pipeline.step(second, b, e)
    # The longest leaves the first lane; a copy of the last one's beginning becomes a row of it.
    first = keep(first, 0)
    (a,) = pipeline.step(first, a)
    if can_take_back(subject, num_tokens=2, of=4 + e.position):
        first = join(first, copy_less(take(second, 1), 2))
        a, _ = pipeline.step(first, a, Row(4))
        first = keep(first, 0)
    else:
        (a,) = pipeline.step(first, a)
    # All that are left in one lane, and the last of them alone.
    second = join(second, first)
    b, e, a = pipeline.step(second, b, e, a)
    pipeline.step(keep(second, 1), e)


def can_take_back(subject: Subject, num_tokens: int, of: int) -> bool:
    limit = max_trimmable_tokens(subject.model)
    return num_tokens <= of and (limit is None or of < limit)


@pytest.mark.parametrize("subject", NAMES, indirect=True)
def test_copies_go_on_by_themselves(subject: Subject) -> None:
    model, alone = subject.model, subject.alone[4]
    cache = prefilled(model, subject.prompts[4])
    copied = copy_cache(cache)
    for one in (copied, cache):
        check_exact(model, one, alone, range(2))
    again = copy_cache(cache)
    if can_take_back(subject, num_tokens=2, of=6):
        trim_cache(again, 2)
        check_exact(model, again, alone, range(2))
    elif max_trimmable_tokens(model) == 0:
        with pytest.raises(StageError, match="cannot take 2 tokens back"):
            trim_cache(again, 2)
    check_exact(model, cache, alone, range(2, 4))


def check_exact(model: nn.Module, cache: list[Cache], alone: Alone, positions: range) -> None:
    for position in positions:
        got = decode(model, cache, alone.tokens[position])
        assert mx.array_equal(got, alone.logits[position], equal_nan=True).item()


def test_can_batch_knows_what_runs_alone() -> None:
    assert {name for name in NAMES if not can_batch(build(name))} == NOT_BATCHED
