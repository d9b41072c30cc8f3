"""Answers held to grammars and changed by penalties, through real stage processes."""

import json
import os
import re
import signal
import threading
from typing import Any

import jsonschema
import pytest

import tbcluster
from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Grammar, LogitRules, Output, SamplingParams
from tbcluster.errors import RequestError, TbclusterError
from tests.doubles.waiting import wait_until

PROMPT = "The capital of"
SHORT = {"type": "string", "maxLength": 12}
SMALL = {"type": "integer", "minimum": -50, "maximum": 999}
SCHEMAS: dict[str, dict[str, Any]] = {
    "optional properties": {
        "type": "object",
        "properties": {"a": SHORT, "b": SMALL, "c": {"type": "boolean"}, "d": {"type": "null"}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "enums": {
        "type": "object",
        "properties": {"kind": {"enum": ["red", "green", 3, None]}, "const": {"const": {"x": [1]}}},
        "required": ["kind", "const"],
        "additionalProperties": False,
    },
    "nested arrays": {
        "type": "array",
        "items": {"type": "array", "items": SMALL, "minItems": 1, "maxItems": 2},
        "minItems": 1,
        "maxItems": 3,
    },
    "patterns": {
        "type": "object",
        "properties": {
            "date": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
        },
        "required": ["date", "code"],
        "additionalProperties": False,
    },
    "numbers": {
        "type": "object",
        "properties": {
            "n": {"type": "number", "minimum": 0, "maximum": 1},
            "i": {"type": "integer", "exclusiveMinimum": 5, "multipleOf": 5, "maximum": 500},
        },
        "required": ["n", "i"],
        "additionalProperties": False,
    },
    "references": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "maxLength": 4},
                    "children": {
                        "type": "array",
                        "items": {"$ref": "#/$defs/node"},
                        "maxItems": 1,
                    },
                },
                "required": ["name"],
                "additionalProperties": False,
            }
        },
    },
    "alternatives": {
        "anyOf": [
            {"type": "object", "properties": {"x": SMALL}, "required": ["x"]}
            | {"additionalProperties": False},
            {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
            {"type": "string", "maxLength": 5},
        ]
    },
}


@pytest.fixture
def cluster(demo_cluster: Cluster) -> Cluster:
    return demo_cluster


class Answer:
    """What a request was told; `wait` for its end."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.error: TbclusterError | None = None
        self.is_over = threading.Event()

    def __call__(self, item: Output | TbclusterError) -> None:
        if isinstance(item, Output):
            self.outputs.append(item)
        else:
            self.error = item
        if not isinstance(item, Output) or item.finish_reason is not None:
            self.is_over.set()

    def wait(self) -> "Answer":
        assert self.is_over.wait(60), "no end came"
        assert self.error is None, self.error
        return self

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.outputs)

    @property
    def tokens(self) -> list[int]:
        return [output.sampled.token for output in self.outputs]

    @property
    def finish_reason(self) -> str | None:
        return self.outputs[-1].finish_reason


def ask(
    cluster: Cluster, rules: LogitRules | None, *, seed: int = 0, max_tokens: int = 150, **more: Any
) -> Answer:
    answer = Answer()
    prompt = cluster.tokenizer.encode(PROMPT)
    sampling = SamplingParams(**{"temperature": 1.0, "seed": seed, **more})
    cluster.submit(
        cluster.make_request(prompt, max_tokens=max_tokens, sampling=sampling, rules=rules), answer
    )
    return answer


def held_to(text: str) -> LogitRules:
    return LogitRules(grammar=Grammar(text))


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_answers_validate_against_their_schema(cluster: Cluster, schema: dict[str, Any]) -> None:
    rules = held_to(cluster.grammars.json_schema(schema))
    answers = [ask(cluster, rules, seed=seed) for seed in range(12)]
    texts = [answer.wait().text for answer in answers if answer.wait().finish_reason == "stop"]
    assert len(texts) >= 6, "too few came to an end to mean anything"
    checker = jsonschema.FormatChecker()
    for text in texts:
        jsonschema.validate(json.loads(text), schema, format_checker=checker)
    assert len(set(texts)) > 1


@pytest.mark.parametrize(
    "pattern", [r"[a-f]{3,5} [0-9]+x", r"(yes|no)( é+)?\.", r"[^aeiou\n ][^aeiou\n]{9}"]
)
def test_answers_match_their_expression(cluster: Cluster, pattern: str) -> None:
    rules = held_to(cluster.grammars.regex(pattern))
    answers = [ask(cluster, rules, seed=seed).wait() for seed in range(6)]
    ended = [answer.text for answer in answers if answer.finish_reason == "stop"]
    assert ended
    assert all(re.fullmatch(pattern, text) for text in ended)


def test_an_answer_cut_short_says_so_and_is_the_beginning_of_one(cluster: Cluster) -> None:
    rules = held_to(cluster.grammars.regex("([a-z]{4} ){100}"))
    answer = ask(cluster, rules, max_tokens=9).wait()
    assert answer.finish_reason == "length"
    assert len(answer.tokens) == 9
    assert re.fullmatch(r"([a-z]{4} )*[a-z]{0,4}", answer.text)


def test_strict_filters_and_masks_together(cluster: Cluster) -> None:
    rules = held_to(cluster.grammars.regex("[0-9]{12}"))
    settings = [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}]
    texts = [ask(cluster, rules, **setting).wait().text for setting in settings]
    assert len(set(texts)) == 1
    assert re.fullmatch("[0-9]{12}", texts[0])


def test_free_and_held_requests_side_by_side(cluster: Cluster) -> None:
    """Each equals its lone run, whatever shares its lane."""
    kinds = [
        None,
        held_to(cluster.grammars.json_schema(SCHEMAS["optional properties"])),
        LogitRules(frequency_penalty=1.0, presence_penalty=0.5),
        held_to(cluster.grammars.regex("[a-z ]{40}")),
        LogitRules(repetition_penalty=1.2, logit_bias=((400, 5.0),)),
    ]
    asked = [(rules, seed) for seed in range(3) for rules in kinds]
    alone = [ask(cluster, rules, seed=seed, max_tokens=40).wait().tokens for rules, seed in asked]
    together = [ask(cluster, rules, seed=seed, max_tokens=40) for rules, seed in asked]
    assert [answer.wait().tokens for answer in together] == alone


def test_reasoning_is_free_and_what_follows_is_not(cluster: Cluster) -> None:
    """With plain tokens for markers, one of which is made likely."""
    tokenizer = cluster.tokenizer
    [close] = tokenizer.encode(".", add_special_tokens=False)
    [begin] = tokenizer.encode("a", add_special_tokens=False)
    text = cluster.grammars.regex("[0-9]{5}")
    grammar = Grammar(text, (begin,), (close,), is_thinking=True)
    for seed in range(6):
        answer = ask(cluster, LogitRules(((close, 4.0),), grammar=grammar), seed=seed).wait()
        reasoning, _, rest = answer.text.partition(".")
        assert re.fullmatch("[0-9]{5}", rest), answer.text
        assert not re.fullmatch("[0-9]*", reasoning)
    opened = Grammar(text, (begin,), (close,))
    bias = ((begin, 20.0), (close, 20.0))
    answer = ask(cluster, LogitRules(bias, grammar=opened)).wait()
    assert re.fullmatch(r"a[^.]*\.[0-9]{5}", answer.text, re.DOTALL)
    answer = ask(cluster, LogitRules(((begin, -100.0),), grammar=opened)).wait()
    assert re.fullmatch("[0-9]{5}", answer.text)


def test_stop_texts_end_held_answers(cluster: Cluster) -> None:
    text = tbcluster.generate(
        cluster, cluster.tokenizer, PROMPT, regex="[a-z]{5}END[a-z]{5}", stop="END"
    )
    assert re.fullmatch("[a-z]{5}", text)


def test_penalties_do_what_they_say(cluster: Cluster) -> None:
    plain = ask(cluster, None, temperature=0.0, max_tokens=60).wait().tokens
    frequency = LogitRules(frequency_penalty=2.0)
    varied = ask(cluster, frequency, temperature=0.0, max_tokens=60).wait().tokens
    assert len(set(varied)) > len(set(plain))
    banned = LogitRules(logit_bias=tuple((token, -100.0) for token in set(plain)))
    other = ask(cluster, banned, temperature=0.0, max_tokens=60).wait().tokens
    assert not set(other) & set(plain)


def test_the_python_api(cluster: Cluster) -> None:
    def generate(**options: Any) -> str:
        return tbcluster.generate(cluster, cluster.tokenizer, PROMPT, max_tokens=150, **options)

    schema = SCHEMAS["enums"]
    jsonschema.validate(json.loads(generate(json_schema=schema)), schema)
    assert generate(grammar='root ::= ("yes" | "no") "."') in ("yes.", "no.")
    assert generate(repetition_penalty=1.5) != generate()
    assert generate(presence_penalty=0.0, logit_bias={}) == generate()
    for bad in (
        {"regex": "(a"},
        {"json_schema": {"type": "what"}},
        {"grammar": "start: x"},
        {"logit_bias": {99999: 1.0}},
        {"logit_bias": [1]},
        {"frequency_penalty": 3},
    ):
        with pytest.raises(RequestError) as caught:
            generate(**bad)
        assert caught.value.param == next(iter(bad))
    with pytest.raises(RequestError, match="exclude each other"):
        generate(regex="a", grammar="start: x")


def test_a_grammar_that_fails_on_the_way_ends_its_request_alone(cluster: Cluster) -> None:
    complex_ = """start: NUMBER REST
    NUMBER: /[0-9]{3}:/
    REST: /(.*a.{12})/ & /(.*b.{17})/ & /(.*c.{19})/
    """
    other = ask(cluster, None, max_tokens=40)
    broken = ask(cluster, held_to(cluster.grammars.lark(complex_)))
    assert broken.is_over.wait(60)
    assert "the grammar cannot be followed" in str(broken.error)
    assert other.wait().tokens == ask(cluster, None, max_tokens=40).wait().tokens


def test_rules_are_followed_on_when_the_last_stage_was_killed() -> None:
    with Cluster(stages=2) as cluster:
        rules = held_to(cluster.grammars.regex("([a-z]{4} ){40}[0-9]"))
        undisturbed = ask(cluster, rules, max_tokens=80).wait().tokens
        running = ask(cluster, rules, max_tokens=80)
        wait_until(lambda: len(running.outputs) > 3, "some tokens")
        pid = cluster.status().stages[-1].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert running.wait().tokens == undisturbed
        assert cluster.status().stages[-1].num_restarts == 1
