"""The endpoints under /api that a program made for Ollama asks for."""

from functools import partial
from typing import Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from tbcluster.server.answering import Answer
from tbcluster.server.bodies import UntypedJsonRoute
from tbcluster.server.error_docs import responses, streamed
from tbcluster.server.intake import Generation, Intake
from tbcluster.server.ollama.answers import MEDIA_TYPE, Envelope, LineWriter, answer_body, line
from tbcluster.server.ollama.cards import list_body, running_body, show_body
from tbcluster.server.ollama.embed import make_router as make_embed_router
from tbcluster.server.ollama.names import check_room, check_served
from tbcluster.server.ollama.schemas import (
    ChatRequest,
    GenerateRequest,
    GenerationFields,
    ShowRequest,
)
from tbcluster.server.problems import Dialect
from tbcluster.server.token_texts import TokenTexts

# The version of Ollama whose API this follows: clients compare it to know what they may ask for.
API_VERSION = "0.12.11"


def make_router(intake: Intake) -> APIRouter:
    """The endpoints of one cluster."""
    router = APIRouter(
        prefix="/api",
        route_class=UntypedJsonRoute,
        tags=["Ollama"],
        responses=responses(Dialect.OLLAMA),
    )
    cluster = intake.cluster
    texts = TokenTexts(cluster.tokenizer)

    def envelope_of(body: GenerationFields, shape: Literal["chat", "generate"]) -> Envelope:
        return Envelope(shape, body.model, texts, bool(body.logprobs))

    def check(body: GenerationFields) -> None:
        check_served(cluster, body.model)
        check_room(cluster, body.options)

    async def answered(
        body: GenerationFields, envelope: Envelope, generation: Generation, http: HttpRequest
    ) -> Response:
        answer = Answer(cluster, generation, http)
        if body.streams:
            return await answer.stream(LineWriter(envelope))
        return await answer.whole(partial(answer_body, envelope))

    @router.post("/chat", responses=streamed(MEDIA_TYPE))
    async def chat(body: ChatRequest, http: HttpRequest) -> Response:
        """Answer a conversation, streamed line by line unless `stream` is false."""
        check(body)
        envelope = envelope_of(body, "chat")
        if not body.messages:
            return _loaded(body, envelope)
        generation = await run_in_threadpool(intake.chat, body.chat(), body.neutral_options())
        return await answered(body, envelope, generation, http)

    @router.post("/generate", responses=streamed(MEDIA_TYPE))
    async def generate(body: GenerateRequest, http: HttpRequest) -> Response:
        """Answer a prompt, or continue it if it is raw; streamed unless `stream` is false."""
        check(body)
        envelope = envelope_of(body, "generate")
        if not body.prompt:
            return _loaded(body, envelope)
        options = body.neutral_options()
        if body.raw:
            generation = await run_in_threadpool(intake.completions, [body.prompt], options)
        else:
            generation = await run_in_threadpool(intake.chat, body.chat(), options)
        return await answered(body, envelope, generation, http)

    @router.post("/show")
    async def show(body: ShowRequest) -> dict[str, Any]:
        """What is known of the served model."""
        check_served(cluster, body.wanted)
        return show_body(cluster, intake.format)

    @router.get("/tags")
    async def tags() -> dict[str, Any]:
        """The served model, as the only one in a list."""
        return list_body(cluster)

    @router.get("/ps")
    async def running() -> dict[str, Any]:
        """The served model, which is always loaded."""
        return running_body(cluster)

    @router.get("/version")
    async def version() -> dict[str, str]:
        """The version of Ollama whose API this follows."""
        return {"version": API_VERSION}

    router.include_router(make_embed_router(intake))
    return router


def _loaded(body: GenerationFields, envelope: Envelope) -> Response:
    """Clients ask without a prompt to have a model loaded; it is."""
    loaded = envelope.loaded()
    if body.streams:
        return Response(line(loaded), media_type=MEDIA_TYPE)
    return JSONResponse(loaded)
