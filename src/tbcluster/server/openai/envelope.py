"""The object around the choices of an answer or chunk."""

import secrets
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from tbcluster.server.deltas import Usage
from tbcluster.server.energy import usage_energy
from tbcluster.server.token_texts import TokenTexts

FINGERPRINT = f"tbcluster-{version('tbcluster')}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all chunks of one answer share."""

    id_prefix: str
    model: str
    texts: TokenTexts
    shows_logprobs: bool
    token: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def answer_id(self) -> str:
        """The answer's own name."""
        return f"{self.id_prefix}{self.token}"

    def body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """An answer or chunk; `kind` is the dialect's name for it."""
        return {
            "id": self.answer_id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        }


def usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts in the dialect's words."""
    return {
        "prompt_tokens": usage.num_prompt,
        "completion_tokens": usage.num_generated,
        "total_tokens": usage.num_total,
        "prompt_tokens_details": {"cached_tokens": usage.num_cached},
        "completion_tokens_details": {"reasoning_tokens": usage.num_reasoning},
        **usage_energy(usage),
    }
