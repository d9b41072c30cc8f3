"""The endpoints under /api that a program made for Ollama asks for."""

from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from tbcluster.server.answering import Answer
from tbcluster.server.bodies import UntypedJsonRoute
from tbcluster.server.desk import Desk
from tbcluster.server.error_docs import responses, streamed
from tbcluster.server.intake import Generation, Intake
from tbcluster.server.ollama.answers import (
    MEDIA_TYPE,
    Envelope,
    LineWriter,
    Shape,
    answer_body,
    line,
    unasked_body,
)
from tbcluster.server.ollama.cards import list_body, running_body, show_body
from tbcluster.server.ollama.embed import make_router as make_embed_router
from tbcluster.server.ollama.names import intake_of, plain
from tbcluster.server.ollama.schemas import (
    ChatRequest,
    GenerateRequest,
    GenerationFields,
    ShowRequest,
)
from tbcluster.server.problems import Dialect

# The version of Ollama whose API this follows: clients compare it to know what they may ask for.
API_VERSION = "0.12.11"


def make_router(desk: Desk) -> APIRouter:
    """The endpoints of all models."""
    router = APIRouter(
        prefix="/api",
        route_class=UntypedJsonRoute,
        tags=["Ollama"],
        responses=responses(Dialect.OLLAMA),
    )
    models = desk.models

    async def taken_in(body: GenerationFields, http: HttpRequest) -> Intake:
        return await intake_of(desk, http, body.model, body.options, body.keep_alive)

    async def unasked(body: GenerationFields, shape: Shape, http: HttpRequest) -> Response:
        """Clients ask without a prompt to have a model loaded or, with `keep_alive` 0, unloaded."""
        leaves = body.keep_alive == 0 and models.rules.loads_on_use
        if leaves:
            await run_in_threadpool(models.unload, plain(body.model))
        else:
            await taken_in(body, http)
        answer = unasked_body(shape, body.model, "unload" if leaves else "load")
        if body.streams:
            return Response(line(answer), media_type=MEDIA_TYPE)
        return JSONResponse(answer)

    async def answered(
        intake: Intake,
        body: GenerationFields,
        envelope: Envelope,
        generation: Generation,
        http: HttpRequest,
    ) -> Response:
        answer = Answer(intake, generation, http)
        if body.streams:
            return await answer.stream(LineWriter(envelope))
        return await answer.whole(partial(answer_body, envelope))

    @router.post("/chat", responses=streamed(MEDIA_TYPE))
    async def chat(body: ChatRequest, http: HttpRequest) -> Response:
        """Answer a conversation, streamed line by line unless `stream` is false."""
        if not body.messages:
            return await unasked(body, "chat", http)
        intake = await taken_in(body, http)
        envelope = _envelope(intake, body, "chat")
        generation = await run_in_threadpool(intake.chat, body.chat(), body.neutral_options())
        return await answered(intake, body, envelope, generation, http)

    @router.post("/generate", responses=streamed(MEDIA_TYPE))
    async def generate(body: GenerateRequest, http: HttpRequest) -> Response:
        """Answer a prompt, or continue it if it is raw; streamed unless `stream` is false."""
        if not body.prompt:
            return await unasked(body, "generate", http)
        intake = await taken_in(body, http)
        envelope = _envelope(intake, body, "generate")
        options = body.neutral_options()
        if body.raw:
            generation = await run_in_threadpool(intake.completions, [body.prompt], options)
        else:
            generation = await run_in_threadpool(intake.chat, body.chat(), options)
        return await answered(intake, body, envelope, generation, http)

    @router.post("/show")
    async def show(body: ShowRequest, http: HttpRequest) -> dict[str, Any]:
        """What is known of a model; of one that is not loaded, what its config tells."""
        name = plain(body.wanted)
        view = await run_in_threadpool(models.view, name)
        answers = (await desk.intake(http, name)).format if view.is_there else None
        return await run_in_threadpool(show_body, view, answers, models.created_at)

    @router.get("/tags")
    async def tags() -> dict[str, Any]:
        """The models that are loaded and those that can be."""
        views = await run_in_threadpool(models.views)
        return await run_in_threadpool(list_body, views, models.created_at)

    @router.get("/ps")
    async def running() -> dict[str, Any]:
        """The models that are loaded, and how long they stay if nobody uses them."""
        return running_body(await run_in_threadpool(models.loaded_views))

    @router.get("/version")
    async def version() -> dict[str, str]:
        """The version of Ollama whose API this follows."""
        return {"version": API_VERSION}

    router.include_router(make_embed_router(desk))
    return router


def _envelope(intake: Intake, body: GenerationFields, shape: Shape) -> Envelope:
    return Envelope(shape, body.model, intake.texts, bool(body.logprobs))
