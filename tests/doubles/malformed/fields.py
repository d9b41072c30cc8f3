"""The fields of every endpoint, by what they take: anything else has to be refused."""

import random
from typing import Any

from tests.doubles.malformed.attack import RAW, Attack, as_json, post, with_value

TEXT, NUMBER, COUNT, ANY_INTEGER, FLAG, LIST, MAP = (
    "text", "number", "count", "integer", "flag", "list", "map",
)  # fmt: skip
# A text or a list of them; where token ids will do as well; one of such a list.
TEXTS, INPUTS, PART = "texts", "inputs", "part"

WRONG_VALUES: dict[str, list[Any]] = {
    TEXT: [5, 1.5, True, ["x"], {"a": 1}],
    TEXTS: [5, True, {"a": 1}, [5], [None]],
    PART: [True, 1.5, {"a": 1}, None, -1, 2**70],
    INPUTS: [5, True, {"a": 1}, [None], [1.5], [True], [[]], [["x"]], [-1]],
    NUMBER: ["1", True, [1], {"a": 1}, "NaN"],
    COUNT: ["1", 1.5, True, [1], {"a": 1}, -1, -(2**63), 2**63, 2**64, 10**30],
    ANY_INTEGER: ["1", 1.5, True, [1], {"a": 1}, 10**30],
    FLAG: ["true", 1, 0, [True], {"a": 1}, 1.5],
    LIST: ["x", 5, True, {"a": 1}, 1.5],
    MAP: ["x", 5, True, [1], 1.5],
}
# As they stand in JSON text.
WRONG_NUMBERS = {
    "1e999": b"1e999",
    "-1e999": b"-1e999",
    "10**400": b"1" + b"0" * 400,
    "10**5000": b"1" + b"0" * 5000,
    "10**1000000": b"1" + b"0" * 10**6,
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "a leading zero": b"007",
    "hexadecimal": b"0x10",
    "a lone minus": b"-",
}

SAMPLING = {
    "model": TEXT,
    "stream": FLAG,
    "temperature": NUMBER,
    "top_p": NUMBER,
    "top_k": COUNT,
}
OPENAI = {
    **SAMPLING,
    "min_p": NUMBER,
    "seed": ANY_INTEGER,
    "stop": TEXTS,
    "logit_bias": MAP,
    "presence_penalty": NUMBER,
    "frequency_penalty": NUMBER,
    "repetition_penalty": NUMBER,
    "regex": TEXT,
    "grammar": TEXT,
    "ignore_eos": FLAG,
    "cache_prompt": FLAG,
    "stream_options": MAP,
    "n": COUNT,
    "max_tokens": COUNT,
}
MESSAGES = {
    "messages": LIST,
    "messages.0": MAP,
    "messages.0.role": TEXT,
    "messages.0.content": TEXTS,
    "messages.1.role": TEXT,
}
# Path -> a right body, but for "model", and its fields.
ENDPOINTS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "/v1/chat/completions": (
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
        {
            **OPENAI,
            **MESSAGES,
            "messages.0.tool_calls": LIST,
            "messages.0.reasoning_content": TEXT,
            "max_completion_tokens": COUNT,
            "logprobs": FLAG,
            "top_logprobs": COUNT,
            "response_format": MAP,
            "response_format.type": TEXT,
            "tools": LIST,
            "tools.0": MAP,
            "tools.0.function": MAP,
            "tools.0.function.name": TEXT,
            "tool_choice": MAP,
            "parallel_tool_calls": FLAG,
            "reasoning_effort": TEXT,
            "chat_template_kwargs": MAP,
        },
    ),
    "/v1/completions": (
        {"prompt": "The capital", "max_tokens": 2},
        {**OPENAI, "echo": FLAG, "logprobs": COUNT, "prompt.0": PART},
    ),
    "/v1/responses": (
        {"input": "Hi", "max_output_tokens": 16, "store": False},
        {
            **SAMPLING,
            "input.0": TEXT,
            "input.0.content": LIST,
            "instructions": TEXT,
            "previous_response_id": TEXT,
            "max_output_tokens": COUNT,
            "text": MAP,
            "tools": LIST,
            "parallel_tool_calls": FLAG,
            "reasoning": MAP,
        },
    ),
    "/v1/embeddings": ({"input": "Hi"}, {"model": TEXT, "input": INPUTS, "dimensions": COUNT}),
    "/v1/messages": (
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
        {
            **SAMPLING,
            **MESSAGES,
            "max_tokens": COUNT,
            "stop_sequences": LIST,
            "system": TEXTS,
            "tools": LIST,
            "tool_choice": MAP,
            "thinking": MAP,
        },
    ),
    "/v1/messages/count_tokens": (
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"model": TEXT, **MESSAGES, "system": TEXTS, "tools": LIST},
    ),
    "/api/chat": (
        {"messages": [{"role": "user", "content": "Hi"}], "options": {"num_predict": 2}},
        {
            "model": TEXT,
            "messages": LIST,
            "messages.0": MAP,
            "messages.0.role": TEXT,
            "messages.0.content": TEXT,
            "stream": FLAG,
            "tools": LIST,
            "options": MAP,
            "options.temperature": NUMBER,
            "options.top_k": COUNT,
            "options.seed": ANY_INTEGER,
            "options.stop": TEXTS,
        },
    ),
    "/api/generate": (
        {"prompt": "Hi", "options": {"num_predict": 2}},
        {
            "model": TEXT,
            "prompt": TEXT,
            "system": TEXT,
            "raw": FLAG,
            "stream": FLAG,
            "options": MAP,
            "options.top_p": NUMBER,
            "options.num_predict": ANY_INTEGER,
        },
    ),
    "/api/embed": (
        {"input": "Hi"},
        {"model": TEXT, "input": INPUTS, "truncate": FLAG, "dimensions": COUNT, "options": MAP},
    ),
    "/tokenize": (
        {"prompt": "Hi"},
        {"prompt": TEXT, "add_special_tokens": FLAG, "model": TEXT, "tools": LIST},
    ),
    "/detokenize": ({"tokens": [300]}, {"tokens": LIST, "tokens.0": ANY_INTEGER, "model": TEXT}),
}
PATHS = tuple(ENDPOINTS)
# Where a text of the user's own goes.
TEXT_FIELD = {
    "/v1/chat/completions": "messages.0.content",
    "/v1/completions": "prompt",
    "/v1/responses": "input",
    "/v1/embeddings": "input",
    "/v1/messages": "messages.0.content",
    "/v1/messages/count_tokens": "messages.0.content",
    "/api/chat": "messages.0.content",
    "/api/generate": "prompt",
    "/api/embed": "input",
    "/tokenize": "prompt",
    "/detokenize": "tokens",
}


def right_body(path: str, model: str) -> dict[str, Any]:
    """One that is answered."""
    return {"model": model, **ENDPOINTS[path][0]}


def wrong_type(source: random.Random, path: str, model: str) -> Attack:
    """A field of the endpoint with a value of another type, or out of any range."""
    where, kind = source.choice(sorted(ENDPOINTS[path][1].items()))
    if where.endswith(".0") and kind == TEXT:  # a list may hold objects and numbers as well
        kind = FLAG
    value = source.choice(WRONG_VALUES[kind])
    if kind == TEXTS and "content" in where:
        value = source.choice([5, True, 1.5])
    body = with_value(_roomy(right_body(path, model), where), where, value)
    return Attack(f"{where} is {value!r}", path, post(path, as_json(body)))


def wrong_number(source: random.Random, path: str, model: str) -> Attack:
    """A number that no field can hold, or that is none."""
    fields = ENDPOINTS[path][1]
    numeric = [name for name, kind in fields.items() if kind in (NUMBER, COUNT, ANY_INTEGER)]
    where = source.choice([*sorted(numeric), TEXT_FIELD[path]])
    name = source.choice(sorted(WRONG_NUMBERS))
    body = with_value(_roomy(right_body(path, model), where), where, RAW)
    return Attack(f"{where} is {name}", path, post(path, as_json(body, WRONG_NUMBERS[name])))


def _roomy(body: dict[str, Any], where: str) -> dict[str, Any]:
    """The body without a text where a list has to be."""
    name, _, rest = where.partition(".")
    return {
        key: value
        for key, value in body.items()
        if not (rest and key == name and isinstance(value, str))
    }
