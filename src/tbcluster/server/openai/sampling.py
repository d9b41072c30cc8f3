"""How to sample, in the words that all endpoints of the OpenAI dialect share."""

import math
from typing import Any, Self

from pydantic import Field, model_validator

from tbcluster.engine.limits import MAX_INTEGER, MAX_SEED
from tbcluster.server.ask import Constraint, Options
from tbcluster.server.fields import Body, Listed, refusal

MAX_STOPS = 4
MAX_STOP_LENGTH = 1000
MAX_CHOICES = 16
MAX_PROMPTS = 128
MAX_TOP_LOGPROBS = 20
MAX_BIASES = 1024


class SamplingFields(Body):
    """The model, and how to pick tokens; what is not OpenAI's is vLLM's or mlx-lm's."""

    model: str
    stream: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=MAX_INTEGER)
    min_p: float | None = Field(default=None, ge=0, le=1)
    seed: int | None = Field(default=None, ge=-MAX_SEED, le=MAX_SEED - MAX_CHOICES * MAX_PROMPTS)
    stop: str | Listed[str] | None = None
    logit_bias: dict[str, float] | None = Field(default=None, max_length=MAX_BIASES)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    repetition_context_size: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    regex: str | None = Field(default=None, min_length=1)
    grammar: str | None = Field(default=None, min_length=1)
    ignore_eos: bool | None = None
    cache_prompt: bool | None = None

    @model_validator(mode="after")
    def _check_sampling(self) -> Self:
        if len(self.stops) > MAX_STOPS:
            raise refusal(
                "stop", f"stop has {len(self.stops)} texts, at most {MAX_STOPS} are allowed"
            )
        if any(not 0 < len(word) <= MAX_STOP_LENGTH for word in self.stops):
            raise refusal("stop", f"a stop text is empty or longer than {MAX_STOP_LENGTH}")
        _parse_biases(self.logit_bias or {})
        if self.regex is not None and self.grammar is not None:
            raise refusal("grammar", "regex and grammar cannot both be asked for: choose one")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop texts."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    def options(self, **differing: Any) -> Options:
        """The dialect-free options; `differing` is what the endpoints name in their own ways."""
        known = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "seed": self.seed,
            "stop": self.stops,
            "logit_bias": _parse_biases(self.logit_bias or {}),
            "presence_penalty": self.presence_penalty or 0.0,
            "frequency_penalty": self.frequency_penalty or 0.0,
            "repetition_penalty": self.repetition_penalty or 1.0,
            "repetition_context": self.repetition_context_size,
            "constraint": self.text_constraint(),
            "ignores_eos": bool(self.ignore_eos),
            "cache_prompt": self.cache_prompt is not False,
        }
        return Options(**{**known, **differing})

    def text_constraint(self) -> Constraint | None:
        """What `regex` or `grammar` ask for."""
        if self.regex is not None:
            return Constraint("regex", self.regex, "regex")
        if self.grammar is not None:
            return Constraint("grammar", self.grammar, "grammar")
        return None


def _parse_biases(biases: dict[str, float]) -> tuple[tuple[int, float], ...]:
    parsed = {}
    for key, value in biases.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            raise refusal("logit_bias", f"logit_bias: {key[:40]!r} is no token id")
        if not (math.isfinite(value) and -100 <= value <= 100):
            raise refusal(
                "logit_bias", f"logit_bias[{key}] is {value}, it must be from -100 to 100"
            )
        parsed[int(key)] = value
    return tuple(sorted(parsed.items()))
