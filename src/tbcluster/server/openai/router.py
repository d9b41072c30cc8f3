"""/v1/chat/completions, /v1/completions and /v1/models."""

from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from tbcluster.server.answering import Answer
from tbcluster.server.anthropic import models as anthropic_models
from tbcluster.server.bodies import JsonRoute
from tbcluster.server.desk import Desk
from tbcluster.server.error_docs import streamed
from tbcluster.server.openai.chat import ChatWriter, chat_body
from tbcluster.server.openai.completions import CompletionWriter, completion_body
from tbcluster.server.openai.envelope import Envelope
from tbcluster.server.openai.models import model_card, model_list
from tbcluster.server.openai.schemas import ChatCompletionRequest, CompletionRequest
from tbcluster.server.sse import MEDIA_TYPE


def make_router(desk: Desk) -> APIRouter:
    """The endpoints of all models."""
    router = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["OpenAI"])
    models = desk.models

    @router.post("/chat/completions", responses=streamed(MEDIA_TYPE))
    async def chat_completions(body: ChatCompletionRequest, http: HttpRequest) -> Response:
        """Answer a conversation, whole or streamed."""
        intake = await desk.intake(http, body.model)
        generation = await run_in_threadpool(intake.chat, body.chat(), body.chat_options())
        envelope = Envelope("chatcmpl-", intake.name, intake.texts, bool(body.logprobs))
        answer = Answer(intake, generation, http, envelope.answer_id)
        if not body.stream:
            return await answer.whole(partial(chat_body, envelope))
        num_choices = len(generation.requests)
        return await answer.stream(
            ChatWriter(envelope, num_choices, includes_usage=body.includes_usage)
        )

    @router.post("/completions", responses=streamed(MEDIA_TYPE))
    async def completions(body: CompletionRequest, http: HttpRequest) -> Response:
        """Continue texts or token arrays, whole or streamed."""
        intake = await desk.intake(http, body.model)
        options = body.completion_options()
        generation = await run_in_threadpool(intake.completions, body.prompts, options)
        envelope = Envelope("cmpl-", intake.name, intake.texts, body.logprobs is not None)
        echoes = [""] * len(generation.requests)
        if body.echo:
            echoes = await run_in_threadpool(_echoes, intake.cluster.tokenizer, body)
        answer = Answer(intake, generation, http, envelope.answer_id)
        if not body.stream:
            return await answer.whole(partial(completion_body, envelope, echoes))
        return await answer.stream(
            CompletionWriter(envelope, echoes, includes_usage=body.includes_usage)
        )

    @router.get("/models")
    async def list_models(http: HttpRequest) -> dict[str, Any]:
        """The models that are loaded and those that can be; in Anthropic's shape for its
        clients."""
        views = await run_in_threadpool(models.views)
        if anthropic_models.is_asked_for(http):
            return anthropic_models.model_page(views, models.created_at)
        return model_list(views, models.created_at)

    @router.get("/models/{name:path}")
    async def model(name: str, http: HttpRequest) -> dict[str, Any]:
        """One of them; in Anthropic's shape for its clients."""
        view = await run_in_threadpool(models.view, name)
        if anthropic_models.is_asked_for(http):
            return anthropic_models.model_info(view, models.created_at)
        return model_card(view, models.created_at)

    return router


def _echoes(tokenizer: Any, body: CompletionRequest) -> list[str]:
    """What comes before each choice's text: the prompt as it was given."""
    given = [p if isinstance(p, str) else str(tokenizer.decode(p)) for p in body.prompts]
    return [prompt for prompt in given for _ in range(body.n or 1)]
