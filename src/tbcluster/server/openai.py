"""/v1/chat/completions, /v1/completions and /v1/models."""

import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Output, Request
from tbcluster.errors import TbclusterError, UnknownModelError
from tbcluster.generation import chat_prompt
from tbcluster.server.choices import run_choices, unless_disconnected
from tbcluster.server.problems import describe
from tbcluster.server.prompts import completion_prompts, make_requests, message_turns
from tbcluster.server.schemas import (
    ChatCompletionRequest,
    CompletionRequest,
    GenerationFields,
    StreamOptions,
)

COMPLETION_MAX_TOKENS = 16  # the dialect's default for /v1/completions


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one endpoint words its answers.

    Attributes:
        opening: First piece of a streamed choice, or None.
        piece: Text -> a choice's content in a stream.
        whole: Text -> a choice's content in one answer.
    """

    id_prefix: str
    object_name: str
    chunk_name: str
    opening: dict[str, Any] | None
    piece: Callable[[str], dict[str, Any]]
    whole: Callable[[str], dict[str, Any]]


CHAT = Dialect(
    id_prefix="chatcmpl-",
    object_name="chat.completion",
    chunk_name="chat.completion.chunk",
    opening={"delta": {"role": "assistant", "content": ""}},
    piece=lambda text: {"delta": {"content": text} if text else {}},
    whole=lambda text: {"message": {"role": "assistant", "content": text}},
)
COMPLETION = Dialect(
    id_prefix="cmpl-",
    object_name="text_completion",
    chunk_name="text_completion",
    opening=None,
    piece=lambda text: {"text": text},
    whole=lambda text: {"text": text},
)


def make_router(cluster: Cluster) -> APIRouter:
    """The OpenAI-style endpoints of one cluster."""
    router = APIRouter(prefix="/v1")

    @router.post("/chat/completions")
    async def chat_completions(body: ChatCompletionRequest, http: HttpRequest) -> Response:
        check_model(cluster, body)
        prompt = await run_in_threadpool(
            chat_prompt, cluster.tokenizer, message_turns(body.messages)
        )
        max_tokens = body.max_completion_tokens or body.max_tokens
        requests = make_requests(cluster, [prompt], body, max_tokens)
        return await answer(Answer(cluster, CHAT, requests, body.n), body, http)

    @router.post("/completions")
    async def completions(body: CompletionRequest, http: HttpRequest) -> Response:
        check_model(cluster, body)
        prompts = await run_in_threadpool(completion_prompts, cluster.tokenizer, body.prompts)
        max_tokens = body.max_tokens or COMPLETION_MAX_TOKENS
        requests = make_requests(cluster, prompts, body, max_tokens)
        return await answer(Answer(cluster, COMPLETION, requests, body.n), body, http)

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_card(cluster)]}

    @router.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        if name != cluster.model_name:
            raise UnknownModelError(name, cluster.model_name)
        return model_card(cluster)

    return router


def check_model(cluster: Cluster, body: GenerationFields) -> None:
    """Raises: UnknownModelError when the request is for a model that is not served."""
    if body.model != cluster.model_name:
        raise UnknownModelError(body.model, cluster.model_name)


def model_card(cluster: Cluster) -> dict[str, Any]:
    """The served model as /v1/models lists it."""
    return {
        "id": cluster.model_name,
        "object": "model",
        "created": int(cluster.created_at),
        "owned_by": "tbcluster",
        "context_length": cluster.context_length,
    }


@dataclass
class Answer:
    """What is known of an answer as it grows.

    Attributes:
        requests: `num_choices` for each prompt, prompt by prompt.
    """

    cluster: Cluster
    dialect: Dialect
    requests: list[Request]
    num_choices: int
    created: int = field(default_factory=lambda: int(time.time()))
    num_generated: dict[int, int] = field(default_factory=dict)
    num_cached: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.answer_id = self.dialect.id_prefix + secrets.token_hex(12)

    def outputs(self) -> AsyncGenerator[tuple[int, Output], None]:
        """All choices' outputs as they come."""
        return run_choices(self.cluster, self.requests)

    def count(self, index: int, output: Output) -> None:
        """Note how far a choice is."""
        self.num_generated[index] = output.num_generated_tokens
        self.num_cached[index] = output.num_cached_tokens

    def usage(self) -> dict[str, Any]:
        """Token counts; each prompt counts once, however many choices it has."""
        firsts = range(0, len(self.requests), self.num_choices)
        num_prompt = sum(len(self.requests[first].prompt) for first in firsts)
        num_generated = sum(self.num_generated.values())
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_generated,
            "total_tokens": num_prompt + num_generated,
            "prompt_tokens_details": {
                "cached_tokens": sum(self.num_cached.get(first, 0) for first in firsts)
            },
        }

    def envelope(self, name: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """The object around choices."""
        return {
            "id": self.answer_id,
            "object": name,
            "created": self.created,
            "model": self.cluster.model_name,
            "choices": choices,
        }


async def answer(state: Answer, body: GenerationFields, http: HttpRequest) -> Response:
    """The whole answer, or a stream whose first token has already come: what can be refused is
    refused with a status code."""
    if not body.stream:
        whole = await unless_disconnected(http, collect(state))
        return JSONResponse(whole) if whole is not None else Response(status_code=499)
    outputs = state.outputs()
    first = await unless_disconnected(http, anext(outputs))
    if first is None:
        return Response(status_code=499)
    events = stream_events(state, first, outputs, body.stream_options or StreamOptions())
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def collect(state: Answer) -> dict[str, Any]:
    """The answer in one object."""
    texts = [""] * len(state.requests)
    reasons: list[str | None] = [None] * len(state.requests)
    async with aclosing(state.outputs()) as outputs:
        async for index, output in outputs:
            state.count(index, output)
            texts[index] += output.text
            reasons[index] = output.finish_reason
    choices = [
        choice(index, state.dialect.whole(text), reasons[index]) for index, text in enumerate(texts)
    ]
    return {**state.envelope(state.dialect.object_name, choices), "usage": state.usage()}


async def stream_events(
    state: Answer,
    first: tuple[int, Output],
    outputs: AsyncGenerator[tuple[int, Output], None],
    options: StreamOptions,
) -> AsyncIterator[bytes]:
    """The answer as server-sent events."""
    dialect = state.dialect

    def chunk(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        body = state.envelope(dialect.chunk_name, choices)
        return event({**body, "usage": usage} if options.include_usage else body)

    async with aclosing(outputs):
        if dialect.opening is not None:
            for index in range(len(state.requests)):
                yield chunk([choice(index, dialect.opening, None)])
        try:
            async for index, output in chain(first, outputs):
                state.count(index, output)
                if output.text or output.finish_reason:
                    piece = dialect.piece(output.text)
                    yield chunk([choice(index, piece, output.finish_reason)])
        except TbclusterError as error:
            yield event(describe(error)[1])
        else:
            if options.include_usage:
                yield chunk([], state.usage())
        yield b"data: [DONE]\n\n"


async def chain(
    first: tuple[int, Output], rest: AsyncGenerator[tuple[int, Output], None]
) -> AsyncGenerator[tuple[int, Output], None]:
    """`first`, then the rest."""
    yield first
    async for item in rest:
        yield item


def choice(index: int, content: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    """One choice of an answer or of a chunk."""
    return {"index": index, **content, "logprobs": None, "finish_reason": finish_reason}


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
