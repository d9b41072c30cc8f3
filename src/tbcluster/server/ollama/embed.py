"""/api/embed and the older /api/embeddings."""

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from pydantic import BeforeValidator, Field

from tbcluster.core import Output, Request
from tbcluster.embeddings import finished_vector
from tbcluster.engine.limits import MAX_INTEGER
from tbcluster.errors import RequestError
from tbcluster.generation import encode_prompt
from tbcluster.server.bodies import UntypedJsonRoute
from tbcluster.server.desk import Desk
from tbcluster.server.disconnection import unless_disconnected
from tbcluster.server.embeddings import MAX_INPUTS, check_dimensions, counted_outputs
from tbcluster.server.fields import Body, Listed
from tbcluster.server.intake import Intake
from tbcluster.server.ollama.answers import nanoseconds
from tbcluster.server.ollama.keep_alive import KeepAlive
from tbcluster.server.ollama.names import intake_of
from tbcluster.server.ollama.schemas import ModelOptions
from tbcluster.server.problems import CLIENT_CLOSED_REQUEST

InputText = Annotated[str, Field(min_length=1)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class EmbedFields(Body):
    """What both endpoints take. Of the options, those of sampling mean nothing here."""

    model: str = Field(min_length=1)
    options: ModelOptions | None = None
    keep_alive: KeepAlive = None


class EmbedRequest(EmbedFields):
    """Body of POST /api/embed."""

    input: Annotated[
        Listed[InputText],
        BeforeValidator(_listed, json_schema_input_type=str | list[str]),
        Field(min_length=1, max_length=MAX_INPUTS),
    ]
    # What is too long is cut at its end, unless this is false.
    truncate: bool | None = None
    dimensions: int | None = Field(default=None, ge=1, le=MAX_INTEGER)


class EmbeddingsRequest(EmbedFields):
    """Body of POST /api/embeddings."""

    prompt: InputText


def make_router(desk: Desk) -> APIRouter:
    """The endpoints of all models."""
    router = APIRouter(route_class=UntypedJsonRoute)

    async def outputs_of(
        body: EmbedFields, texts: list[str], http: HttpRequest, *, truncates: bool = True
    ) -> list[Output] | None:
        """One for each text; None if the client has gone away."""
        intake = await intake_of(desk, http, body.model, body.options, body.keep_alive)
        requests = await run_in_threadpool(_requests, intake, texts, truncates=truncates)
        return await unless_disconnected(http, counted_outputs(intake, requests, http))

    @router.post("/embed")
    async def embed(body: EmbedRequest, http: HttpRequest) -> Response:
        """Turn texts into vectors of length 1."""
        began_at = time.monotonic()
        outputs = await outputs_of(body, body.input, http, truncates=body.truncate is not False)
        if outputs is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        content = await run_in_threadpool(_embed_answer, body, outputs, began_at)
        return Response(content, media_type="application/json")

    @router.post("/embeddings")
    async def embeddings(body: EmbeddingsRequest, http: HttpRequest) -> Response:
        """Turn a text into a vector, as it comes out of the model."""
        outputs = await outputs_of(body, [body.prompt], http)
        if outputs is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        return JSONResponse({"embedding": finished_vector(outputs[0], normalize=False).tolist()})

    return router


def _requests(intake: Intake, texts: list[str], *, truncates: bool) -> list[Request]:
    """A request for each text. Encoding takes its time: call it outside the event loop."""
    cluster = intake.cluster
    longest = cluster.longest_sequence if truncates else None
    # Encoding takes seconds for each megabyte: first what is far too long for anything goes.
    most = intake.max_characters if truncates else None
    try:
        if not truncates:
            intake.check_length(max(map(len, texts), default=0), "text")
        return [
            cluster.make_embedding_request(encode_prompt(cluster.tokenizer, text[:most])[:longest])
            for text in texts
        ]
    except RequestError as error:
        raise type(error)(f"input: {error}", "input") from error


def _embed_answer(body: EmbedRequest, outputs: list[Output], began_at: float) -> bytes:
    """The answer as JSON, put together vector by vector: in one piece millions of numbers would
    hold up the engine's thread."""
    check_dimensions(body.dimensions, outputs)
    vectors = []
    for output in outputs:
        vector = finished_vector(output, dimensions=body.dimensions)
        vectors.append(msgspec.json.encode(vector.tolist()))
    return b'{"model":%b,"embeddings":[%b],"total_duration":%d,"load_duration":0,%b}' % (
        msgspec.json.encode(body.model),
        b",".join(vectors),
        nanoseconds(time.monotonic() - began_at),
        b'"prompt_eval_count":%d' % sum(output.num_prompt_tokens for output in outputs),
    )
