"""Speaks OpenAI's API to a server and notes what comes when."""

import json
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from tbcluster.errors import EndpointError
from tbcluster.loadtest.chunks import CachedTokens, Chunk, Delta, Energy, Models
from tbcluster.loadtest.plan import Api
from tbcluster.loadtest.samples import Sample

# A server may wait long for its turn; what is silent for longer has gone.
SILENCE_S = 600.0
CONNECT_S = 10.0
MANY = 4096
# Understood by vLLM and tbcluster: an answer of exactly so many tokens.
EXACT = {"ignore_eos": True}
DATA = "data:"
DONE = "[DONE]"
MAX_WORDS = 300


class LoadClient:
    """A server under test, as an asynchronous context manager.

    Args:
        url: With or without /v1.
        key: An API key, where one is asked for.
        api: Which endpoint; "auto" takes completions where there are some, else chats.

    Raises:
        EndpointError: The address or the key cannot be one.

    Attributes:
        model: Its id there.
        server: Its Server header.
    """

    def __init__(self, url: str, key: str | None, model: str | None, api: Api) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model = model or ""
        self.api = api
        self.server = ""
        self._exact: dict[str, Any] = dict(EXACT)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        try:
            self._http = httpx.AsyncClient(
                base_url=self.url,
                headers=headers,
                timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
                limits=httpx.Limits(max_connections=MANY, max_keepalive_connections=MANY),
                # A proxy for the internet knows nothing of servers here.
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise EndpointError(f"{url!r} is no address of a server: {error}") from error
        except UnicodeEncodeError as error:
            raise EndpointError("--key: an API key is of ASCII's characters alone") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def begin(self) -> None:
        """Find out what the server is called, which model it has, and what it understands.

        Raises:
            EndpointError: It cannot be measured; says why.
        """
        listed = await self._listed()
        if not self.model:
            self.model = self._first_model(listed)
        if self.api == "auto":
            probe = await self.ask("completions", "Hi", 1)
            self.api = "chat" if probe.error is not None else "completions"
        if await self._is_refused():
            # Not all servers can be told to go on; then counts are what they are.
            self._exact = {}
            if refusal := await self._is_refused():
                raise EndpointError(f"{self.url} refuses a small request: {refusal}")

    async def ask(self, api: str, text: str, num_tokens: int) -> Sample:
        """Send a prompt and follow the answer to its end; what goes wrong is in the sample."""
        sample = Sample(time.perf_counter(), num_tokens)
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": num_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._exact,
        }
        if api == "chat":
            path = "/v1/chat/completions"
            body["messages"] = [{"role": "user", "content": text}]
        else:
            path, body["prompt"] = "/v1/completions", text
        try:
            async with self._http.stream("POST", path, json=body) as answer:
                self.server = self.server or answer.headers.get("server", "")
                if answer.is_success:
                    await self._follow(answer.aiter_lines(), sample)
                else:
                    sample.error = _refusal(answer.status_code, await answer.aread())
        except httpx.HTTPError as error:
            sample.error = f"{type(error).__name__}: {error}".rstrip(": ")
        sample.total_s = time.perf_counter() - sample.sent_at
        return sample

    async def measure(self, text: str, num_tokens: int) -> Sample:
        """The same at the endpoint that was found."""
        return await self.ask(self.api, text, num_tokens)

    async def count(self, text: str) -> int:
        """How many tokens the server makes of a prompt.

        Raises:
            EndpointError: It does not say.
        """
        sample = await self.measure(text, 1)
        if sample.error is not None:
            raise EndpointError(f"{self.url} refuses a prompt: {sample.error}")
        if sample.prompt_tokens is None:
            raise EndpointError(
                f"{self.url} does not count tokens (no `usage` in its streams): prompts of exact "
                "lengths cannot be made for it"
            )
        return sample.prompt_tokens

    async def _is_refused(self) -> str | None:
        return (await self.measure("Hi", 2)).error

    async def _listed(self) -> httpx.Response:
        try:
            answer = await self._http.get("/v1/models")
        except httpx.HTTPError as error:
            raise EndpointError(
                f"no server answers at {self.url} ({error}): name its address with --url"
            ) from error
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise EndpointError(f"{self.url} asks for an API key: give one with --key")
        return answer

    def _first_model(self, answer: httpx.Response) -> str:
        """Of several, one that is loaded: nobody wants to measure a load."""
        try:
            models = msgspec.json.decode(answer.content, type=Models).data
            return ([m for m in models if m.is_loaded] or models)[0].id
        except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
            raise EndpointError(
                f"{self.url} lists no model at /v1/models: name one with --model"
            ) from error

    async def _follow(self, lines: AsyncIterator[str], sample: Sample) -> None:
        async for line in lines:
            if not line.startswith(DATA):
                continue
            data = line[len(DATA) :].strip()
            if data == DONE:
                return
            try:
                chunk = msgspec.json.decode(data, type=Chunk)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                sample.error = f"a line of its stream cannot be read ({error}): {data}"[:MAX_WORDS]
                return
            _take(chunk, sample)


def _take(chunk: Chunk, sample: Sample) -> None:
    if chunk.error:
        sample.error = str(chunk.error)[:MAX_WORDS]
    for choice in chunk.choices or ():
        delta = choice.delta or Delta()
        # Reasoning is of tokens too, by the names that servers give it.
        if choice.text or delta.content or delta.reasoning_content or delta.reasoning:
            sample.chunks_at.append(time.perf_counter() - sample.sent_at)
    if usage := chunk.usage:
        sample.prompt_tokens = usage.prompt_tokens
        sample.output_tokens = usage.completion_tokens
        sample.cached_tokens = (usage.prompt_tokens_details or CachedTokens()).cached_tokens
        sample.joules = (usage.energy or Energy()).joules


def _refusal(status: int, content: bytes) -> str:
    try:
        message = json.loads(content)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = content.decode(errors="replace")
    return f"HTTP {status}: {str(message)[:MAX_WORDS]}"
