"""Logprobs in the two shapes of the OpenAI dialect."""

from collections.abc import Sequence
from typing import Any

from tbcluster.core import SampledToken, TokenId
from tbcluster.server.token_texts import TokenTexts

# OpenAI's own word for a probability of zero.
LOWEST = -9999.0


def chat_logprobs(texts: TokenTexts, sampled: Sequence[SampledToken]) -> dict[str, Any]:
    """`logprobs` of a chat choice or chunk."""

    def entry(token: TokenId, logprob: float | None) -> dict[str, Any]:
        raw = texts.raw(token)
        return {"token": texts.text(token), "logprob": _finite(logprob), "bytes": list(raw)}

    return {
        "content": [
            {
                **entry(item.token, item.logprob),
                "top_logprobs": [entry(token, logprob) for token, logprob in item.top],
            }
            for item in sampled
        ],
        "refusal": None,
    }


def completion_logprobs(
    texts: TokenTexts, sampled: Sequence[SampledToken], offset: int = 0
) -> dict[str, Any]:
    """`logprobs` of a text completion's choice or chunk.

    Args:
        offset: Where in the choice's text the first token begins, in characters.
    """
    tokens = [texts.text(item.token) for item in sampled]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": tokens,
        "token_logprobs": [_finite(item.logprob) for item in sampled],
        "top_logprobs": [
            {texts.text(token): _finite(logprob) for token, logprob in item.top} or None
            for item in sampled
        ],
        "text_offset": offsets,
    }


def _finite(logprob: float | None) -> float:
    """JSON has no infinity."""
    return LOWEST if logprob is None else max(logprob, LOWEST)
