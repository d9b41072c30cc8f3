"""Logit rules on the last stage of real executors, against mlx-lm on the whole model."""

from functools import cache
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import make_repetition_penalty

from tbcluster.core import Grammar, LogitRules, MicroBatch, Sample, SamplingParams, TokenId
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import StageError
from tbcluster.model.grammar import Grammars
from tbcluster.model.grammar_mask import GrammarMasks, masks_of_model
from tbcluster.model.slicing import StageModel
from tbcluster.model.source import check_folder
from tbcluster.model.tokenizer import open_tokenizer
from tbcluster.model.tracer import trace
from tbcluster.stage.cache_store import CacheStore
from tbcluster.stage.executor import StageExecutor
from tbcluster.stage.rules_store import RulesStore
from tbcluster.wire.messages import Result, Step
from tbcluster.wire.operations import CacheOperation, DropRules, JoinLane, NewCache, NewRules
from tests.doubles import architectures

GREEDY = SamplingParams()
PROMPT = (5, 700, 5, 31, 60, 700)
NUM_TOKENS = 25
REPETITION = LogitRules(repetition_penalty=1.5, repetition_context=20)
TOKENIZER = open_tokenizer(check_folder(Path(MODEL_PATH)))


@cache
def masks() -> GrammarMasks:
    return masks_of_model(Path(MODEL_PATH))


@cache
def llama() -> tuple[Any, Any]:
    model = architectures.build("llama")
    return architectures.random_parameters(model), trace(architectures.build("llama"))


class Stages:
    """Two stages; a step goes through both."""

    def __init__(self) -> None:
        parameters, traced = llama()
        self._executors = []
        self._step_ids = count()
        for index, (start, end) in enumerate(pairwise([0, 3, traced.num_layers])):
            loaded = architectures.load(architectures.build("llama"), parameters)
            model = StageModel(loaded, traced, start, end)
            caches = CacheStore(model.make_cache, None)
            rules = RulesStore(masks()) if index == 1 else None
            self._executors.append(StageExecutor(model, caches, index, 2, 1, rules=rules))

    def answer(
        self, batch: MicroBatch | None, *operations: CacheOperation, epoch: int = 1
    ) -> Result:
        step = self._executors[0].run(Step(epoch, next(self._step_ids), operations, batch))
        assert isinstance(step, Step)
        result = self._executors[1].run(step)
        assert isinstance(result, Result)
        return result

    def start(
        self, cache_id: int, prompt: tuple[TokenId, ...], *operations: CacheOperation
    ) -> None:
        batch = MicroBatch(cache_id, prompt[:-1])
        assert self.answer(batch, NewCache(cache_id), *operations).error is None

    def go_on(self, cache_id: int, prompt: tuple[TokenId, ...], num: int, rules_id: int | None):  # type: ignore[no-untyped-def]
        tokens = list(prompt)
        for _ in range(num):
            sample = Sample(GREEDY, len(tokens), rules_id)
            result = self.answer(MicroBatch(cache_id, (tokens[-1],), (sample,)))
            assert result.error is None, result.error
            tokens.append(result.sampled[0].token)
        return tokens[len(prompt) :]


@cache
def unsharded_tokens(penalty: float) -> list[TokenId]:
    model = architectures.load(architectures.build("llama"), llama()[0])
    kv_cache = make_prompt_cache(model)
    mx.eval(model(mx.array([PROMPT[:-1]]), cache=kv_cache))
    processor = make_repetition_penalty(penalty, 20)
    tokens = list(PROMPT)
    for _ in range(NUM_TOKENS):
        logits = model(mx.array([tokens[-1:]]), cache=kv_cache)[:, -1]
        best: Any = mx.argmax(processor(tokens, logits), axis=-1).item()
        tokens.append(best)
    return tokens[len(PROMPT) :]


def test_a_repetition_penalty_through_stages_equals_mlx_lm() -> None:
    stages = Stages()
    stages.start(1, PROMPT, NewRules(7, REPETITION, PROMPT, ()))
    got = stages.go_on(1, PROMPT, NUM_TOKENS, 7)
    assert got == unsharded_tokens(1.5)
    assert got != unsharded_tokens(1.0)


def test_made_anew_they_go_on_where_they_were() -> None:
    expected = unsharded_tokens(1.5)
    stages = Stages()
    begun = (*PROMPT, *expected[:10])
    stages.start(1, begun, NewRules(8, REPETITION, PROMPT, tuple(expected[:10])))
    assert stages.go_on(1, begun, NUM_TOKENS - 10, 8) == expected[10:]


def test_rows_of_a_lane_have_rules_of_their_own() -> None:
    """Free, penalized and constrained rows side by side equal each alone."""
    grammar = LogitRules(grammar=Grammar(Grammars(TOKENIZER, 1280).regex("([a-z]{3} ){1,4}[0-9]")))
    kinds = [None, REPETITION, grammar]
    alone = []
    for rules in kinds:
        stages = Stages()
        stages.start(1, PROMPT, *([NewRules(2, rules, PROMPT, ())] if rules else []))
        alone.append(stages.go_on(1, PROMPT, 8, 2 if rules else None))
    shared = Stages()
    ids = [None, 21, 22]
    for cache_id, (rules, rules_id) in enumerate(zip(kinds, ids, strict=True)):
        made = [NewRules(rules_id, rules, PROMPT, ())] if rules and rules_id else []
        shared.start(cache_id, PROMPT, *made)
    shared.answer(None, JoinLane(9, (0, 1, 2)))
    rows = [[PROMPT[-1]] for _ in kinds]
    for step in range(8):
        samples = tuple(Sample(GREEDY, len(PROMPT) + step, rules_id) for rules_id in ids)
        result = shared.answer(MicroBatch(9, tuple(row[-1] for row in rows), samples))
        for row, sampled in zip(rows, result.sampled, strict=True):
            row.append(sampled.token)
    assert [row[1:] for row in rows] == alone
    assert alone[0] == unsharded_tokens(1.0)[:8]
    assert TOKENIZER.decode(alone[2])[:3].islower()


def test_a_row_that_cannot_go_on_is_told_beside_the_others() -> None:
    bad = LogitRules(grammar=Grammar("nonsense"))
    stages = Stages()
    stages.start(0, PROMPT, NewRules(5, bad, (), ()))
    stages.start(1, PROMPT)
    stages.answer(None, JoinLane(9, (0, 1)))
    samples = (Sample(GREEDY, len(PROMPT), 5), Sample(GREEDY, len(PROMPT)))
    result = stages.answer(MicroBatch(9, (PROMPT[-1],) * 2, samples))
    assert result.error is None
    failed, whole = result.sampled
    assert "the grammar cannot be followed" in (failed.error or "")
    assert (whole.token, whole.error) == (unsharded_tokens(1.0)[0], None)


@pytest.mark.parametrize("how", ["dropped", "never made", "a new epoch"])
def test_rules_that_are_not_there(how: str) -> None:
    stages = Stages()
    made = [NewRules(7, REPETITION, PROMPT, ())] if how != "never made" else []
    stages.start(1, PROMPT, *made)
    batch = MicroBatch(1, (PROMPT[-1],), (Sample(GREEDY, len(PROMPT), 7),))
    if how == "a new epoch":
        result = stages.answer(batch, NewCache(1), epoch=2)
    else:
        result = stages.answer(batch, *([DropRules(7)] if how == "dropped" else []))
    assert result.error == "stage 1: no logit rules 7 on this stage"
    assert not result.sampled


def test_the_store_alone() -> None:
    store = RulesStore(masks())
    free, ruled = Sample(GREEDY, 1), Sample(GREEDY, 1, 3)
    assert store.of([free, free]) == []
    store.apply(NewRules(3, REPETITION, (), ()))
    first, second = store.of([free, ruled])
    assert first is None
    assert second is not None
    store.apply(DropRules(4))
    assert store.of([ruled]) == [second]
    store.clear()
    with pytest.raises(StageError, match="no logit rules 3"):
        store.of([ruled])
