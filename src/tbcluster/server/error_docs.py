"""What the OpenAPI page says of answers: the dialects' error shapes, and streams."""

from typing import Any, Literal

from pydantic import BaseModel

from tbcluster.server.problems import Dialect


class OpenAIErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error in OpenAI's shape; `param` names the field at fault."""

    error: OpenAIErrorDetail


class AnthropicErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(BaseModel):
    """An error in Anthropic's shape."""

    type: Literal["error"]
    error: AnthropicErrorDetail
    request_id: str | None


class OllamaError(BaseModel):
    """An error in Ollama's shape."""

    error: str


_MODELS: dict[Dialect, type[BaseModel]] = {
    Dialect.OPENAI: OpenAIError,
    Dialect.ANTHROPIC: AnthropicError,
    Dialect.OLLAMA: OllamaError,
}


def responses(dialect: Dialect = Dialect.OPENAI) -> dict[int | str, dict[str, Any]]:
    """For `APIRouter(responses=...)`: what each endpoint answers when it cannot do as asked."""
    model = _MODELS[dialect]
    return {
        "4XX": {"model": model, "description": "The request cannot be served as asked."},
        "5XX": {"model": model, "description": "The server cannot answer now."},
    }


def streamed(media_type: str) -> dict[int | str, dict[str, Any]]:
    """For `router.post(responses=...)`: that the answer is JSON, or a stream of this type."""
    content = {media_type: {"schema": {"type": "string"}}}
    return {200: {"description": "The answer, whole or as a stream.", "content": content}}
