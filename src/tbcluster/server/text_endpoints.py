"""/tokenize and /detokenize, in vLLM's shapes."""

from typing import Any, Self

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import Field, model_validator

from tbcluster.core import TokenId
from tbcluster.errors import RequestError
from tbcluster.generation import check_text
from tbcluster.server.ask import Chat, Tools
from tbcluster.server.bodies import JsonRoute
from tbcluster.server.desk import Desk
from tbcluster.server.fields import Body, Listed, refusal
from tbcluster.server.intake import Intake
from tbcluster.server.openai.schemas import MAX_TOOLS, ChatMessage, FunctionTool

MAX_DETOKENIZED = 1 << 18


class TokenizeRequest(Body):
    """Body of POST /tokenize: a text or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: Listed[ChatMessage] | None = Field(default=None, min_length=1)
    tools: Listed[FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)
    add_special_tokens: bool | None = None

    @model_validator(mode="after")
    def _check_one_of(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise refusal("prompt", "either prompt or messages is needed, and not both")
        if self.messages is None and self.tools:
            raise refusal("tools", "tools go with messages")
        if self.messages is not None and self.add_special_tokens:
            raise refusal(
                "add_special_tokens",
                "add_special_tokens goes with prompt: the chat template of messages has its own",
            )
        return self

    def chat(self) -> Chat:
        """The conversation, where it is one."""
        offered = tuple(tool.model_dump(exclude_none=True) for tool in self.tools or ())
        messages = [message.as_dict() for message in self.messages or ()]
        return Chat(messages=messages, tools=Tools(offered))


class DetokenizeRequest(Body):
    """Body of POST /detokenize."""

    model: str | None = None
    tokens: Listed[TokenId] = Field(max_length=MAX_DETOKENIZED)


class Texts:
    """Between texts and token ids of one model; takes its time on long ones."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._tokenizer = intake.cluster.tokenizer

    def tokens(self, body: TokenizeRequest) -> list[TokenId]:
        """Token ids of what the body holds.

        Raises:
            RequestError: The text is none, or is far longer than any prompt, or the chat template
                refuses the messages.
        """
        if body.prompt is None:
            return self._intake.chat_prompt(body.chat())
        check_text(body.prompt, "prompt")
        self._intake.check_length(len(body.prompt), "prompt")
        adds = body.add_special_tokens is not False
        return list(self._tokenizer.encode(body.prompt, add_special_tokens=adds))

    def text(self, tokens: list[TokenId]) -> str:
        """What the ids stand for, special tokens included.

        Raises:
            RequestError: An id is not in the vocabulary.
        """
        num_ids = self._intake.num_ids
        outside = next((token for token in tokens if not 0 <= token < num_ids), None)
        if outside is not None:
            shown = outside if abs(outside) < 2**64 else "a number of more than 64 bits"
            raise RequestError(f"tokens holds {shown}, ids are from 0 to {num_ids - 1}", "tokens")
        return str(self._tokenizer.decode(tokens))


def make_router(desk: Desk) -> APIRouter:
    """The endpoints of all models; a request that names none asks the first."""
    router = APIRouter(route_class=JsonRoute, tags=["Tokens"])

    @router.post("/tokenize")
    async def tokenize(body: TokenizeRequest, http: HttpRequest) -> JSONResponse:
        """The token ids of a text or conversation, and how many fit the model."""
        intake = await desk.intake(http, body.model)

        def answer() -> JSONResponse:
            tokens = Texts(intake).tokens(body)
            longest = intake.cluster.longest_sequence
            # FastAPI's own encoder, in the event loop, would take a second for a million numbers.
            return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": longest})

        return await run_in_threadpool(answer)

    @router.post("/detokenize")
    async def detokenize(body: DetokenizeRequest, http: HttpRequest) -> dict[str, Any]:
        """The text of token ids, special tokens included."""
        intake = await desk.intake(http, body.model)
        return {"prompt": await run_in_threadpool(Texts(intake).text, body.tokens)}

    return router
