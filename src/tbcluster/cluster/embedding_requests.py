"""Requests for embeddings, and how a model's folder says they are pooled."""

import secrets

from tbcluster.core import Pooling, Request, TokenId
from tbcluster.engine.limits import Limits, validate
from tbcluster.errors import RequestError

# sentence-transformers' names.
_MODES = {"mean_tokens": Pooling.MEAN, "lasttoken": Pooling.LAST}


def embedding_request(
    tokens: tuple[TokenId, ...], pooling: Pooling | str, limits: Limits, *, cache_prompt: bool
) -> Request:
    """A request that is ready to be submitted.

    Raises:
        RequestError: The prompt or the pooling cannot be served; `param` names it.
    """
    if pooling not in list(Pooling):
        known = " or ".join(repr(kind.value) for kind in Pooling)
        raise RequestError(f"pooling is {pooling!r}, it must be {known}", "pooling")
    request = Request(
        request_id=secrets.token_hex(12),
        prompt=tokens,
        max_tokens=1,  # which means nothing here
        cache_prompt=cache_prompt,
        pooling=Pooling(pooling),
    )
    validate(request, limits)
    return request


def model_pooling(config: dict[str, object]) -> tuple[Pooling, str | None]:
    """How a model's embeddings are pooled when nobody says how, and a note for the user if its
    own wish cannot be followed.

    Args:
        config: sentence-transformers' 1_Pooling/config.json; empty for none.
    """
    prefix = "pooling_mode_"
    wanted = [name for name, is_on in config.items() if name.startswith(prefix) and is_on is True]
    modes = [name.removeprefix(prefix) for name in wanted]
    if isinstance(named := config.get("pooling_mode"), str):
        modes.append({"mean": "mean_tokens"}.get(named, named))
    if not modes:
        return Pooling.LAST, None
    if len(set(modes)) == 1 and modes[0] in _MODES:
        return _MODES[modes[0]], None
    asked = " and ".join(sorted(set(modes)))
    return Pooling.LAST, (
        f"its 1_Pooling/config.json asks for embeddings by {asked}, which is not served: unless a "
        "request says otherwise, the last token's hidden states are used"
    )
