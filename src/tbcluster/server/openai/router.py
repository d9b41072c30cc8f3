"""/v1/chat/completions, /v1/completions and /v1/models."""

from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from tbcluster.cluster.cluster import Cluster
from tbcluster.server.answering import Answer
from tbcluster.server.anthropic import models as anthropic_models
from tbcluster.server.bodies import JsonRoute
from tbcluster.server.error_docs import streamed
from tbcluster.server.intake import Intake
from tbcluster.server.openai.chat import ChatWriter, chat_body
from tbcluster.server.openai.completions import CompletionWriter, completion_body
from tbcluster.server.openai.envelope import Envelope
from tbcluster.server.openai.schemas import ChatCompletionRequest, CompletionRequest
from tbcluster.server.sse import MEDIA_TYPE
from tbcluster.server.token_texts import TokenTexts


def make_router(intake: Intake) -> APIRouter:
    """The endpoints of one cluster."""
    router = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["OpenAI"])
    cluster = intake.cluster
    texts = TokenTexts(cluster.tokenizer)

    @router.post("/chat/completions", responses=streamed(MEDIA_TYPE))
    async def chat_completions(body: ChatCompletionRequest, http: HttpRequest) -> Response:
        """Answer a conversation, whole or streamed."""
        intake.check_model(body.model)
        generation = await run_in_threadpool(intake.chat, body.chat(), body.chat_options())
        envelope = Envelope("chatcmpl-", cluster.model_name, texts, bool(body.logprobs))
        answer = Answer(cluster, generation, http)
        if not body.stream:
            return await answer.whole(partial(chat_body, envelope))
        num_choices = len(generation.requests)
        return await answer.stream(
            ChatWriter(envelope, num_choices, includes_usage=body.includes_usage)
        )

    @router.post("/completions", responses=streamed(MEDIA_TYPE))
    async def completions(body: CompletionRequest, http: HttpRequest) -> Response:
        """Continue texts or token arrays, whole or streamed."""
        intake.check_model(body.model)
        options = body.completion_options()
        generation = await run_in_threadpool(intake.completions, body.prompts, options)
        envelope = Envelope("cmpl-", cluster.model_name, texts, body.logprobs is not None)
        echoes = [""] * len(generation.requests)
        if body.echo:
            echoes = await run_in_threadpool(_echoes, cluster.tokenizer, body)
        answer = Answer(cluster, generation, http)
        if not body.stream:
            return await answer.whole(partial(completion_body, envelope, echoes))
        return await answer.stream(
            CompletionWriter(envelope, echoes, includes_usage=body.includes_usage)
        )

    @router.get("/models")
    async def models(http: HttpRequest) -> dict[str, Any]:
        """The served model, as the only one in a list; in Anthropic's shape for its clients."""
        if anthropic_models.is_asked_for(http):
            return anthropic_models.model_page(cluster)
        return {"object": "list", "data": [model_card(cluster)]}

    @router.get("/models/{name:path}")
    async def model(name: str, http: HttpRequest) -> dict[str, Any]:
        """The served model; in Anthropic's shape for its clients."""
        intake.check_model(name)
        if anthropic_models.is_asked_for(http):
            return anthropic_models.model_info(cluster)
        return model_card(cluster)

    return router


def model_card(cluster: Cluster) -> dict[str, Any]:
    """The served model as /v1/models lists it."""
    return {
        "id": cluster.model_name,
        "object": "model",
        "created": int(cluster.created_at),
        "owned_by": "tbcluster",
        "context_length": cluster.context_length,
    }


def _echoes(tokenizer: Any, body: CompletionRequest) -> list[str]:
    """What comes before each choice's text: the prompt as it was given."""
    given = [p if isinstance(p, str) else str(tokenizer.decode(p)) for p in body.prompts]
    return [prompt for prompt in given for _ in range(body.n or 1)]
