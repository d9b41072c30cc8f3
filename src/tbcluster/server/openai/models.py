"""Models as /v1/models lists them. `status` is llama.cpp's."""

from collections.abc import Sequence
from typing import Any

from tbcluster.cluster.models.views import ModelView
from tbcluster.server.problems import without_paths


def model_list(views: Sequence[ModelView], since: float) -> dict[str, Any]:
    """All of them.

    Args:
        since: When models that are not loaded began to be listed, in seconds since 1970.
    """
    return {"object": "list", "data": [model_card(view, since) for view in views]}


def model_card(view: ModelView, since: float) -> dict[str, Any]:
    """One model, loaded or not."""
    created_at = since if view.cluster is None else view.cluster.created_at
    return {
        "id": view.name,
        "object": "model",
        "created": int(created_at),
        "owned_by": "tbcluster",
        "context_length": view.context_length,
        "status": _status(view),
    }


def _status(view: ModelView) -> dict[str, Any]:
    status: dict[str, Any] = {"value": view.state.value}
    if view.doing is not None:
        status["doing"] = view.doing
    if view.error is not None:
        status |= {"failed": view.has_failed, "error": without_paths(view.error)}
    return status
