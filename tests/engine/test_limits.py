"""Every number that the stages trust is checked, and the error names its field."""

import math
from typing import Any

import pytest

from tbcluster.core import MAX_GRAMMAR_CHARS, Grammar, LogitRules, Pooling, Request, SamplingParams
from tbcluster.engine.limits import MAX_SEED, Limits, clipped_max_tokens, validate
from tbcluster.errors import ContextLengthError, RequestError

LIMITS = Limits(vocab_size=100, context_length=10)


def request(prompt: tuple[int, ...] = (1, 2), **fields: Any) -> Request:
    return Request("r", prompt, **{"max_tokens": 1, **fields})


GOOD = {
    "plain": request(),
    "first and last token": request((0, 99)),
    "longest prompt": request((1,) * 9),
    "stop": request(stop=("a", "\n")),
    "edges": request(
        sampling=SamplingParams(temperature=0.0, top_p=1.0, top_k=0, min_p=1.0, num_logprobs=0)
    ),
    "hot": request(sampling=SamplingParams(temperature=100, top_p=1e-9, top_k=10**9)),
    "largest seed": request(sampling=SamplingParams(seed=MAX_SEED)),
    "smallest seed": request(sampling=SamplingParams(seed=-MAX_SEED)),
    "rules": request(rules=LogitRules(((0, -100), (99, 100.0)), 2, -2, 100, 1, Grammar("g"))),
    "reasoning": request(rules=LogitRules(grammar=Grammar("g", (98,), (0, 99), True))),
}


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD.keys())
def test_allowed(good: Request) -> None:
    validate(good, LIMITS)


def test_an_embedding_may_be_as_long_as_the_context() -> None:
    validate(request((1,) * 10, pooling=Pooling.LAST), LIMITS)
    with pytest.raises(ContextLengthError, match="11 tokens"):
        validate(request((1,) * 11, pooling=Pooling.MEAN), LIMITS)
    with pytest.raises(ContextLengthError, match="10 tokens"):
        validate(request((1,) * 10), LIMITS)


BAD_SAMPLING: dict[str, tuple[Any, ...]] = {
    "temperature": (-0.1, 101, math.inf, math.nan, "hot"),
    "top_p": (0.0, -1.0, 1.01, math.nan),
    "min_p": (-0.01, 1.01, math.nan),
    "top_k": (-1, 10**30, 1.5, True),
    "seed": (MAX_SEED + 1, -MAX_SEED - 1),
    "num_logprobs": (-1, 101, 2**31),
}
BAD_RULES: dict[str, tuple[Any, ...]] = {
    "logit_bias": (
        *(((token, 1.0),) for token in (-1, 100, 2**40, "5", True, 1.0)),
        *(((5, bias),) for bias in (-100.1, 101, math.inf, math.nan, "x", None)),
    ),
    "presence_penalty": (-2.1, 3, math.nan, "x"),
    "frequency_penalty": (-2.1, 3, math.nan, None),
    "repetition_penalty": (0, -1.0, 1e-9, 101, math.inf, math.nan, "x"),
    "repetition_context": (0, -1, 2.5, True, 2**31),
    "grammar": (
        Grammar("g" * (MAX_GRAMMAR_CHARS + 1)),
        Grammar("g", think_start=(1,)),
        Grammar("g", is_thinking=True),
        Grammar("g", (100,), (1,)),
        Grammar("g", (1,), (-1,)),
    ),
}
# What clients call it.
PARAMS = {"repetition_context": "repetition_context_size"}
BAD_BUDGETS = (-1, 1.5, 2**31, True)
BAD: list[tuple[str, Request]] = [
    ("prompt", request(())),
    ("prompt", request((1, 100))),
    ("prompt", request((-1,))),
    ("prompt", request((5.0, 6.0))),  # type: ignore[arg-type]
    ("max_tokens", request(max_tokens=2**31)),
    ("max_tokens", request(max_tokens=0)),
    ("max_tokens", request(max_tokens=-5)),
    ("stop", request(stop=("a", ""))),
    *[
        (name, request(sampling=SamplingParams(**{name: value})))
        for name, values in BAD_SAMPLING.items()
        for value in values
    ],
    *[
        (PARAMS.get(name, name), request(rules=LogitRules(**{name: value})))
        for name, values in BAD_RULES.items()
        for value in values
    ],
    *[
        ("thinking_budget", request(rules=LogitRules(grammar=Grammar("g", max_thinking=budget))))  # type: ignore[arg-type]
        for budget in BAD_BUDGETS
    ],
]


@pytest.mark.parametrize(("param", "bad"), BAD)
def test_refused_by_name(param: str, bad: Request) -> None:
    with pytest.raises(RequestError) as caught:
        validate(bad, LIMITS)
    assert caught.value.param == param
    assert not isinstance(caught.value, ContextLengthError)


def test_a_prompt_must_leave_room_for_one_token() -> None:
    with pytest.raises(ContextLengthError, match=r"10 tokens.* context is 10"):
        validate(request((1,) * 10), LIMITS)
    validate(request((1,) * 10_000), Limits(vocab_size=100, context_length=None))


def test_prompt_and_answer_must_fit_the_kv_memory() -> None:
    limits = Limits(100, 10, kv_tokens=8, kv_note="stage 1 has 3 MiB")
    validate(request((1,) * 3, max_tokens=5), limits)
    with pytest.raises(ContextLengthError) as caught:
        validate(request((1,) * 3, max_tokens=6), limits)
    assert caught.value.param == "prompt"
    # The numbers, and what to do about them.
    for words in ("3 prompt tokens", "up to 6 new ones", "holds 8 of", "(stage 1 has 3 MiB)"):
        assert words in str(caught.value)
    with pytest.raises(ContextLengthError, match="KV memory"):
        validate(request((1,) * 8, max_tokens=1), limits)
    # The smaller limit is told first.
    with pytest.raises(ContextLengthError, match="context is 10"):
        validate(request((1,) * 10, max_tokens=1), limits)
    # max_tokens is not counted before it is known to be a number.
    with pytest.raises(RequestError, match="max_tokens"):
        validate(request(max_tokens="many"), limits)


@pytest.mark.parametrize(
    ("context", "kv_tokens", "longest"),
    [(None, None, None), (8, None, 8), (None, 9, 9), (8, 9, 8), (9, 8, 8), (8, 0, 0)],
)
def test_the_smaller_limit_holds(
    context: int | None, kv_tokens: int | None, longest: int | None
) -> None:
    assert Limits(100, context, kv_tokens=kv_tokens).longest == longest


@pytest.mark.parametrize(
    ("num_prompt", "wanted", "longest", "expected"),
    [
        (3, 5, None, 5),
        (3, 5, 100, 5),
        (3, 5, 8, 5),
        (3, 5, 7, 4),
        (7, 5, 8, 1),
        (8, 5, 8, 1),  # `validate` refuses this prompt and says why
        (9, 5, 8, 1),
        (3, 0, 8, 0),  # and this number
    ],
)
def test_clipped_max_tokens(
    num_prompt: int, wanted: int, longest: int | None, expected: int
) -> None:
    prompt = (1,) * num_prompt
    for limits in (
        Limits(100, context_length=longest),
        Limits(100, context_length=None, kv_tokens=longest),
        Limits(100, context_length=longest, kv_tokens=1000),
        Limits(100, context_length=1000, kv_tokens=longest),
    ):
        assert clipped_max_tokens(prompt, wanted, limits) == expected


@pytest.mark.parametrize("num_prompt", range(1, 8))
def test_what_is_clipped_is_allowed(num_prompt: int) -> None:
    limits = Limits(100, context_length=10, kv_tokens=8)
    prompt = (1,) * num_prompt
    validate(request(prompt, max_tokens=clipped_max_tokens(prompt, 99, limits)), limits)
