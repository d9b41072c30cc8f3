"""/v1/messages and /v1/messages/count_tokens."""

from functools import partial

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from tbcluster.server.answering import Answer
from tbcluster.server.anthropic.messages import Envelope, MessageWriter, message_body
from tbcluster.server.anthropic.schemas import CountTokensRequest, MessagesRequest
from tbcluster.server.bodies import JsonRoute
from tbcluster.server.desk import Desk
from tbcluster.server.error_docs import responses, streamed
from tbcluster.server.problems import Dialect
from tbcluster.server.sse import MEDIA_TYPE


def make_router(desk: Desk) -> APIRouter:
    """The endpoints of all models."""
    router = APIRouter(
        prefix="/v1/messages",
        route_class=JsonRoute,
        tags=["Anthropic"],
        responses=responses(Dialect.ANTHROPIC),
    )

    @router.post("", responses=streamed(MEDIA_TYPE))
    async def messages(body: MessagesRequest, http: HttpRequest) -> Response:
        """Answer a conversation, whole or streamed."""
        intake = await desk.intake(http, body.model)
        chat = await run_in_threadpool(body.chat, can_reason=intake.format.has_reasoning)
        generation = await run_in_threadpool(intake.chat, chat, body.options())
        envelope = Envelope(intake.name, body.max_tokens, body.shows_thinking)
        answer = Answer(intake, generation, http, envelope.message_id)
        if not body.stream:
            return await answer.whole(partial(message_body, envelope))
        return await answer.stream(MessageWriter(envelope, answer.usage))

    @router.post("/count_tokens")
    async def count_tokens(body: CountTokensRequest, http: HttpRequest) -> dict[str, int]:
        """How many tokens a conversation's prompt has."""
        intake = await desk.intake(http, body.model)
        chat = await run_in_threadpool(body.chat, can_reason=intake.format.has_reasoning)
        prompt = await run_in_threadpool(intake.chat_prompt, chat)
        return {"input_tokens": len(prompt)}

    return router
