"""The response object around the output items."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tbcluster.core import FinishReason, SamplingParams
from tbcluster.server.deltas import Finish, Usage
from tbcluster.server.energy import usage_energy
from tbcluster.server.responses.schemas import ResponsesRequest
from tbcluster.server.responses.store import Item

# Given back where the request has them.
GIVEN_BACK = ("prompt_cache_key", "safety_identifier", "user")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is known of a response before its first token.

    Attributes:
        request: The fields of the response that tell what was asked for.
    """

    request: Mapping[str, Any]
    response_id: str = field(default_factory=lambda: f"resp_{secrets.token_hex(24)}")
    created_at: int = field(default_factory=lambda: int(time.time()))

    def running(self) -> dict[str, Any]:
        """The response while its answer is being made."""
        return self._body("in_progress", [])

    def finished(self, items: list[Item], finish: Finish, usage: Usage) -> dict[str, Any]:
        """The response with the whole answer."""
        if finish.reason is FinishReason.LENGTH:
            details = {"reason": "max_output_tokens"}
            body = self._body("incomplete", items, incomplete_details=details)
        else:
            body = self._body("completed", items, completed_at=int(time.time()))
        return {**body, "usage": usage_body(usage)}

    def failed(self, items: list[Item], error: Mapping[str, Any]) -> dict[str, Any]:
        """The response with what was finished before an error.

        Args:
            error: OpenAI's error object.
        """
        is_refused = error["type"] == "rate_limit_error"
        code = "rate_limit_exceeded" if is_refused else "server_error"
        return self._body("failed", items, error={"code": code, "message": error["message"]})

    def _body(self, status: str, items: list[Item], **differing: Any) -> dict[str, Any]:
        return {
            "id": self.response_id,
            "object": "response",
            "created_at": self.created_at,
            "status": status,
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "max_tool_calls": None,
            "output": items,
            "service_tier": "default",
            "truncation": "disabled",
            "usage": None,
            **self.request,
            **differing,
        }


def request_fields(body: ResponsesRequest, sampling: SamplingParams) -> dict[str, Any]:
    """What a response says of its request; temperature and top_p are those that were used."""
    echoed = {"text", "tool_choice", "tools"}
    asked = body.model_dump(mode="json", by_alias=True, exclude_unset=True, include=echoed)
    extra = body.model_extra or {}
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": body.model,
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": body.effort, "summary": None},
        "store": body.is_stored,
        "temperature": sampling.temperature,
        "text": {"format": {"type": "text"}, "verbosity": "medium", **_given(asked.get("text"))},
        "tool_choice": asked.get("tool_choice") or "auto",
        "tools": [_tool(tool) for tool in asked.get("tools") or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": sampling.top_p,
        **{name: extra[name] for name in GIVEN_BACK if isinstance(extra.get(name), str)},
    }


def usage_body(usage: Usage) -> dict[str, Any]:
    """Token counts in the dialect's words."""
    return {
        "input_tokens": usage.num_prompt,
        "input_tokens_details": {"cached_tokens": usage.num_cached, "cache_write_tokens": 0},
        "output_tokens": usage.num_generated,
        "output_tokens_details": {"reasoning_tokens": usage.num_reasoning},
        "total_tokens": usage.num_total,
        **usage_energy(usage),
    }


def _given(fields: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (fields or {}).items() if value is not None}


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": None, "parameters": None, "strict": None, **tool}
