"""/v1/models, as Anthropic's clients expect it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import Request as HttpRequest

from tbcluster.cluster.models.views import ModelView
from tbcluster.server.problems import VERSION_HEADER


def is_asked_for(http: HttpRequest) -> bool:
    """Whether a request for a path of both dialects is one of this one's."""
    return VERSION_HEADER.decode() in http.headers


def model_info(view: ModelView, since: float) -> dict[str, Any]:
    """One model, loaded or not; see `openai.models` for `since`."""
    cluster = view.cluster
    created_at = since if cluster is None else cluster.created_at
    longest = view.context_length if cluster is None else cluster.longest_sequence
    return {
        "type": "model",
        "id": view.name,
        "display_name": view.name,
        "created_at": datetime.fromtimestamp(int(created_at), UTC).isoformat(),
        "lifecycle": "active",
        "max_input_tokens": longest,
        "max_tokens": longest,
    }


def model_page(views: Sequence[ModelView], since: float) -> dict[str, Any]:
    """All of them, on the only page."""
    data = [model_info(view, since) for view in views]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"data": data, "has_more": False, "first_id": first, "last_id": last}
