"""Requests for text, as a cluster makes them."""

import operator
import secrets
from collections.abc import Sequence

from tbcluster.core import Request, SamplingParams, TokenId
from tbcluster.engine.limits import Limits, clipped_max_tokens
from tbcluster.errors import RequestError


def text_request(
    tokens: tuple[TokenId, ...], max_tokens: int, sampling: SamplingParams, limits: Limits
) -> Request:
    """A request of a new id; `max_tokens` is lowered to what context and KV memory leave."""
    return Request(
        request_id=secrets.token_hex(12),
        prompt=tokens,
        max_tokens=clipped_max_tokens(tokens, max_tokens, limits),
        sampling=sampling,
    )


def token_ids(prompt: Sequence[TokenId]) -> tuple[TokenId, ...]:
    """Whatever counts as integers, as integers.

    Raises:
        RequestError: Something in it does not.
    """
    try:
        return tuple(operator.index(token) for token in prompt)
    except TypeError as error:
        raise RequestError(
            f"the prompt holds something else than ids: {error}", "prompt"
        ) from error
