"""One structured log line for each request that ends: counts and times, and no text of it unless
that was asked for."""

import logging
from dataclasses import dataclass
from typing import Any

from fastapi import Request as HttpRequest

from tbcluster.server.deltas import Usage

logger = logging.getLogger("tbcluster.requests")
# Off unless someone wants it: `serve --log-json` does.
logger.setLevel(logging.WARNING)

MS_PER_S = 1e3


@dataclass(slots=True)
class Texts:
    """What was asked and answered, for those who want it in their log."""

    prompts: list[str]
    answers: list[str]

    @property
    def prompt(self) -> str | list[str]:
        """One alone is not a list."""
        return self.prompts[0] if len(self.prompts) == 1 else self.prompts

    @property
    def answer(self) -> str | list[str]:
        """The same."""
        return self.answers[0] if len(self.answers) == 1 else self.answers


def is_logged() -> bool:
    """Whether anybody reads it."""
    return logger.isEnabledFor(logging.INFO)


def log_request(
    http: HttpRequest,
    model: str,
    usage: Usage,
    outcome: str,
    duration_s: float,
    texts: Texts | None = None,
) -> None:
    """Note a request that has ended as "ok", "cancelled" or "error".

    Args:
        texts: What was asked and answered; None to leave it out.
    """
    if not is_logged():
        return
    state = http.state
    caller = getattr(state, "caller", None)
    fields: dict[str, Any] = {
        "request_id": getattr(state, "request_id", None),
        "endpoint": http.scope["path"],
        "model": model,
        "key": caller.name if caller is not None else None,
        "outcome": outcome,
        "num_prompt_tokens": usage.num_prompt,
        "num_cached_tokens": usage.num_cached,
        "num_generated_tokens": usage.num_generated,
        "duration_ms": round(duration_s * MS_PER_S, 1),
        **_times(usage),
        **({} if usage.energy is None else {"joules": round(usage.energy.joules, 3)}),
        **({} if texts is None else {"prompt": texts.prompt, "answer": texts.answer}),
    }
    logger.info("request %s", outcome, extra={"event": "request", "fields": fields})


def _times(usage: Usage) -> dict[str, float]:
    """From the prompt's beginning to the first token, and from there to the last."""
    if not usage.num_generated:
        return {}
    return {
        "prompt_ms": round((usage.first_token_at - usage.started_at) * MS_PER_S, 1),
        "decode_ms": round((usage.last_token_at - usage.first_token_at) * MS_PER_S, 1),
    }
