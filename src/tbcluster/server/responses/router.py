"""/v1/responses."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from tbcluster.errors import RequestError
from tbcluster.server.answering import Answer
from tbcluster.server.ask import Chat
from tbcluster.server.bodies import JsonRoute
from tbcluster.server.desk import Desk
from tbcluster.server.error_docs import streamed
from tbcluster.server.intake import Generation, Intake
from tbcluster.server.openai.logprobs import chat_logprobs
from tbcluster.server.problems import MAX_SHOWN_NAME, Refusal, shortened
from tbcluster.server.responses.envelope import Envelope, request_fields
from tbcluster.server.responses.events import ResponseWriter, response_body
from tbcluster.server.responses.input_items import ReferenceItem
from tbcluster.server.responses.items import chat_messages, new_item_id
from tbcluster.server.responses.output import OutputItems
from tbcluster.server.responses.schemas import ResponsesRequest
from tbcluster.server.responses.store import Item, ResponseStore, Turn
from tbcluster.server.sse import MEDIA_TYPE

MAX_PAGE = 100
# What the neutral layer calls the fields of this dialect.
_OWN_NAMES = {"messages": "input", "prompt": "input", "max_tokens": "max_output_tokens"}


class RetrieveQuery(BaseModel):
    """Query of GET /v1/responses/{response_id}."""

    model_config = ConfigDict(extra="forbid")

    stream: Literal["false"] | None = None


class ItemsQuery(BaseModel):
    """Query of GET /v1/responses/{response_id}/input_items."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = None
    limit: int = Field(default=20, ge=1, le=MAX_PAGE)
    order: Literal["asc", "desc"] = "desc"


def make_router(desk: Desk, store: ResponseStore | None = None) -> APIRouter:
    """The endpoints of all models; a response can be continued by another one."""
    router = APIRouter(prefix="/v1/responses", route_class=JsonRoute, tags=["OpenAI"])
    kept = ResponseStore() if store is None else store

    def found(http: HttpRequest, response_id: str, param: str) -> Turn:
        turn = kept.get(caller_of(http), response_id)
        if turn is None:
            raise _unknown("response", response_id, param)
        return turn

    @router.post("", responses=streamed(MEDIA_TYPE))
    async def create(body: ResponsesRequest, http: HttpRequest) -> Response:
        """Answer an input, whole or streamed; the response can be continued unless `store` is
        false."""
        intake = await desk.intake(http, body.model)
        caller = caller_of(http)
        previous = None
        if body.previous_response_id is not None:
            previous = found(http, body.previous_response_id, "previous_response_id")
        referred = {_referred_turn(kept, caller, item_id) for item_id in body.referred_items()}
        with own_names():
            items = await run_in_threadpool(_new_items, body, referred)
            generation = await run_in_threadpool(_generation, intake, body, previous, items)
            envelope = Envelope(request_fields(body, generation.requests[0].sampling))
            output = OutputItems(
                new_item_id,
                (lambda s: chat_logprobs(intake.texts, s)["content"])
                if body.shows_logprobs
                else None,
            )

            def keep(response: dict[str, Any]) -> None:
                if body.is_stored:
                    kept.put(Turn(caller, response, items, previous))

            answer = Answer(intake, generation, http, envelope.response_id)
            if body.stream:
                return await answer.stream(ResponseWriter(envelope, output, keep))
            return await answer.whole(partial(response_body, envelope, output), keep)

    @router.get("/{response_id}")
    async def retrieve(
        response_id: str, query: Annotated[RetrieveQuery, Query()], http: HttpRequest
    ) -> Response:
        """A response that is kept."""
        turn = found(http, response_id, "response_id")
        return Response(turn.response_json, media_type="application/json")

    @router.delete("/{response_id}")
    async def delete(response_id: str, http: HttpRequest) -> dict[str, Any]:
        """Forget a response. Those that continue it keep what was said."""
        if not kept.delete(caller_of(http), response_id):
            raise _unknown("response", response_id, "response_id")
        return {"id": response_id, "object": "response", "deleted": True}

    @router.get("/{response_id}/input_items")
    async def input_items(
        response_id: str, query: Annotated[ItemsQuery, Query()], http: HttpRequest
    ) -> dict[str, Any]:
        """What a response answers, page by page, those before it included."""
        items = await run_in_threadpool(found(http, response_id, "response_id").input)
        return page(items if query.order == "asc" else items[::-1], query.after, query.limit)

    return router


def caller_of(http: HttpRequest) -> str:
    """Whose key a request came with; without keys all callers are one."""
    caller = getattr(http.state, "caller", None)
    return "" if caller is None else caller.name


def page(items: list[Item], after: str | None, limit: int) -> dict[str, Any]:
    """A part of a list, as OpenAI pages them.

    Args:
        after: The id of the last item of the page before this one.

    Raises:
        Refusal: No item has the id `after`.
    """
    begin = 0
    if after is not None:
        places = [index for index, item in enumerate(items) if item["id"] == after]
        if not places:
            raise _unknown("item", after, "after")
        begin = places[0] + 1
    shown = items[begin : begin + limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else "",
        "last_id": shown[-1]["id"] if shown else "",
        "has_more": len(items) > begin + limit,
    }


@contextmanager
def own_names() -> Iterator[None]:
    """Let errors name the fields of this dialect."""
    try:
        yield
    except RequestError as error:
        if error.param is not None:
            error.param = _OWN_NAMES.get(error.param, error.param)
        raise


def _generation(
    intake: Intake, body: ResponsesRequest, previous: Turn | None, items: list[Item]
) -> Generation:
    before = [] if previous is None else previous.conversation()
    chat = Chat(
        messages=chat_messages(body.instructions, [*before, *items]),
        tools=body.offered_tools(),
        effort=body.effort,
        param="input",
        effort_param="reasoning.effort",
        template_kwargs=body.chat_template_kwargs or {},
    )
    return intake.chat(chat, body.response_options())


def _referred_turn(store: ResponseStore, caller: str, item_id: str) -> Turn:
    turn = store.turn_of_item(caller, item_id)
    if turn is None:
        raise _unknown("item", item_id, "input")
    return turn


def _new_items(body: ResponsesRequest, referred: set[Turn]) -> list[Item]:
    """The request's items in the form in which they are kept.

    Args:
        referred: The turns that hold what the items refer to.
    """
    known = {item["id"]: item for turn in referred for item in turn.own_items()}
    return [
        known[item.id] if isinstance(item, ReferenceItem) else item.kept() for item in body.input
    ]


def _unknown(kind: str, wanted: str, param: str) -> Refusal:
    code = "previous_response_not_found" if param == "previous_response_id" else None
    return Refusal(
        404,
        f"{param}: there is no {kind} {shortened(wanted, MAX_SHOWN_NAME)!r}: it is unknown, was "
        "deleted, was not stored, or had to make room for newer ones",
        param=param,
        code=code,
    )
