"""/v1/embeddings."""

import base64
from typing import Any, ClassVar, Literal, Self

import msgspec
from fastapi import APIRouter, Response
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from tbcluster.core import Output, Pooling, Request
from tbcluster.embeddings import Vector, arun_embeddings, finished_vector
from tbcluster.engine.limits import MAX_INTEGER
from tbcluster.errors import RequestError, TbclusterError
from tbcluster.generation import encode_prompt
from tbcluster.server.answering import options_of, timer_of
from tbcluster.server.bodies import JsonRoute
from tbcluster.server.desk import Desk
from tbcluster.server.disconnection import unless_disconnected
from tbcluster.server.fields import Body, Listed, one_by_one, refusal
from tbcluster.server.intake import Intake
from tbcluster.server.problems import CLIENT_CLOSED_REQUEST

MAX_INPUTS = 2048
ALLOWED_INPUT = "a text, a list of texts, a list of token ids, or a list of such lists"


class EmbeddingRequest(Body):
    """Body of POST /v1/embeddings; `pooling`, `normalize` and `cache_prompt` are not OpenAI's."""

    model: str
    input: str | Listed[str] | Listed[int] | Listed[Listed[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, le=MAX_INTEGER)
    pooling: Literal["last", "mean"] | None = None
    normalize: bool | None = None
    cache_prompt: bool | None = None

    ACCEPTED: ClassVar[frozenset[str]] = frozenset({"user"})

    @field_validator("input", mode="wrap")
    @classmethod
    def _check_kind(cls, value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
        try:
            return parse(value)
        except ValidationError as error:
            raise refusal("input", f"input must be {ALLOWED_INPUT}") from error

    @model_validator(mode="after")
    def _check_inputs(self) -> Self:
        if not self.inputs or not all(self.inputs):
            raise refusal("input", "an input is empty")
        if len(self.inputs) > MAX_INPUTS:
            raise refusal("input", f"{len(self.inputs)} inputs, at most {MAX_INPUTS} are taken")
        return self

    @property
    def inputs(self) -> list[str | list[int]]:
        """The inputs one by one, as texts or token arrays."""
        return one_by_one(self.input)


def make_router(desk: Desk) -> APIRouter:
    """The endpoint of all models."""
    router = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["OpenAI"])

    @router.post("/embeddings")
    async def embeddings(body: EmbeddingRequest, http: HttpRequest) -> Response:
        """Turn texts or token arrays into vectors."""
        intake = await desk.intake(http, body.model)
        requests = await run_in_threadpool(_requests, intake, body)
        outputs = await unless_disconnected(http, counted_outputs(intake, requests, http))
        if outputs is None:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        content = await run_in_threadpool(_answer, intake.name, body, outputs)
        return Response(content, media_type="application/json")

    return router


def _requests(intake: Intake, body: EmbeddingRequest) -> list[Request]:
    """A request for each input. Encoding takes its time: call it outside the event loop."""
    cluster = intake.cluster
    pooling = Pooling(body.pooling) if body.pooling is not None else None
    requests = []
    for index, text in enumerate(body.inputs):
        try:
            if isinstance(text, str):
                intake.check_length(len(text), "prompt")
            requests.append(
                cluster.make_embedding_request(
                    encode_prompt(cluster.tokenizer, text),
                    pooling,
                    cache_prompt=body.cache_prompt is not False,
                )
            )
        except RequestError as error:
            if error.param != "prompt":
                raise
            where = "input" if len(body.inputs) == 1 else f"input {index}"
            raise type(error)(f"{where}: {error}", "input") from error
    return requests


async def counted_outputs(
    intake: Intake, requests: list[Request], http: HttpRequest
) -> list[Output]:
    """The output of each request, which metrics and the caller's limits count."""
    timer = timer_of(http, intake.name)
    outcome = "cancelled"
    try:
        outputs = await arun_embeddings(intake.cluster, requests, options_of(http).patience)
        outcome = "ok"
    except TbclusterError:
        outcome = "error"
        raise
    finally:
        caller = getattr(http.state, "caller", None)
        if caller is not None:
            caller.charge(sum(len(request.prompt) for request in requests))
        timer.end(outcome)
    return outputs


def _answer(model: str, body: EmbeddingRequest, outputs: list[Output]) -> bytes:
    """The answer as JSON, put together vector by vector: in one piece millions of numbers would
    hold up the engine's thread."""
    check_dimensions(body.dimensions, outputs)
    parts = []
    for index, output in enumerate(outputs):
        vector = finished_vector(
            output, normalize=body.normalize is not False, dimensions=body.dimensions
        )
        item = {"object": "embedding", "index": index, "embedding": _encoded(vector, body)}
        parts.append(msgspec.json.encode(item))
    num_tokens = sum(output.num_prompt_tokens for output in outputs)
    usage = {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    return b'{"object":"list","data":[%b],"model":%b,"usage":%b}' % (
        b",".join(parts),
        msgspec.json.encode(model),
        msgspec.json.encode(usage),
    )


def check_dimensions(dimensions: int | None, outputs: list[Output]) -> None:
    """Raises: RequestError when the embeddings are shorter than `dimensions`."""
    width = min(len(output.embedding or ()) for output in outputs)
    if dimensions is not None and dimensions > width:
        raise RequestError(
            f"dimensions is {dimensions}, this model's embeddings have {width}: ask for fewer",
            "dimensions",
        )


def _encoded(vector: Vector, body: EmbeddingRequest) -> list[float] | str:
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
