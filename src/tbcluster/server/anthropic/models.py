"""/v1/models, as Anthropic's clients expect it."""

from datetime import UTC, datetime
from typing import Any

from fastapi import Request as HttpRequest

from tbcluster.cluster.cluster import Cluster
from tbcluster.server.problems import VERSION_HEADER


def is_asked_for(http: HttpRequest) -> bool:
    """Whether a request for a path of both dialects is one of this one's."""
    return VERSION_HEADER.decode() in http.headers


def model_info(cluster: Cluster) -> dict[str, Any]:
    """The served model."""
    created_at = datetime.fromtimestamp(int(cluster.created_at), UTC)
    return {
        "type": "model",
        "id": cluster.model_name,
        "display_name": cluster.model_name,
        "created_at": created_at.isoformat(),
        "lifecycle": "active",
        "max_input_tokens": cluster.longest_sequence,
        "max_tokens": cluster.longest_sequence,
    }


def model_page(cluster: Cluster) -> dict[str, Any]:
    """The served model, as the only one on the only page."""
    name = cluster.model_name
    return {"data": [model_info(cluster)], "has_more": False, "first_id": name, "last_id": name}
