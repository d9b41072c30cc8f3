"""Who may ask: keys, their rate limits, and names that only this machine has."""

import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tbcluster.server.dashboard.routes import is_of_page
from tbcluster.server.guards import header
from tbcluster.server.keys import ApiKey, KeyRing
from tbcluster.server.problems import MAX_SHOWN_NAME, Refusal, answer, shortened
from tbcluster.server.rate_limits import Allowance, Excess

# Probes have no key; without one they learn nothing but the status.
OPEN_PATHS = {"/health", "/ready"}
# Containers reach their host's own loopback by this name.
LOCAL_NAMES = {"localhost", "host.docker.internal"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key a request came with, as `request.state.caller`."""

    name: str
    allowance: Allowance

    def charge(self, num_tokens: int) -> None:
        """Count the tokens, of prompt and answer, that the request has used."""
        self.allowance.charge(num_tokens)


class HostGuard:
    """Without keys, being on this machine is what lets one in. A web page that lets its own name
    point to this machine (DNS rebinding) still says that name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through that is addressed to this machine by a name of its own."""
        host = header(scope, b"host") or b""
        name = host_name(host.decode("latin-1"))
        if name and not is_local_name(name):
            refusal = Refusal(
                403,
                f"the Host header says {shortened(name, MAX_SHOWN_NAME)!r}, and without keys only "
                "localhost is served: use that name, or start the server with --require-keys or "
                "--insecure",
                code="foreign_host",
            )
            await answer(scope, refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def host_name(host: str) -> str:
    """A Host header without its port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def is_local_name(name: str) -> bool:
    """Whether a name can only mean the machine that uses it."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        name = name.lower().removesuffix(".")
        return name in LOCAL_NAMES or name.endswith(".localhost")


class KeyGuard:
    """Asks for a key and holds it to its limits. Sets `request.state.caller`."""

    def __init__(
        self, app: ASGIApp, keys: KeyRing, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._keys = keys
        self._clock = clock
        self._allowances: dict[str, Allowance] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through that has a key, and what needs none."""
        key = self._key(scope)
        if key is None:
            # The page has to be there before it can ask for a key, and holds nothing.
            if scope["path"] in OPEN_PATHS or is_of_page(scope):
                await self._app(scope, receive, send)
            else:
                await answer(scope, _no_key(scope))(scope, receive, send)
            return
        allowance = self._allowance(key)
        scope["state"]["caller"] = Caller(key.name, allowance)
        if scope["method"] != "POST":  # asks for no work
            await self._app(scope, receive, send)
            return

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(allowance.headers())
            await send(message)

        excess = allowance.admit()
        if excess is None:
            await self._app(scope, receive, send_with_limits)
        else:
            await answer(scope, _too_much(key, excess))(scope, receive, send_with_limits)

    def _key(self, scope: Scope) -> ApiKey | None:
        for presented in presented_keys(scope):
            if (key := self._keys.find(presented)) is not None:
                return key
        return None

    def _allowance(self, key: ApiKey) -> Allowance:
        known = self._allowances.get(key.sha256)
        limits = (key.requests_per_minute, key.tokens_per_minute)
        if known is None or known.limits != limits:
            known = self._allowances[key.sha256] = Allowance(*limits, self._clock)
        return known


def presented_keys(scope: Scope) -> list[str]:
    """What a request brings as its key: OpenAI's way, then Anthropic's."""
    found = []
    kind, _, value = (header(scope, b"authorization") or b"").decode("latin-1").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        found.append(value.strip())
    if own := header(scope, b"x-api-key"):
        found.append(own.decode("latin-1").strip())
    return found


def _no_key(scope: Scope) -> Refusal:
    if presented_keys(scope):
        message = "the API key is not valid: ask whoever runs this server for one"
    else:
        message = "an API key is needed: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`"
    return Refusal(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _too_much(key: ApiKey, excess: Excess) -> Refusal:
    return Refusal(
        429,
        f"the key {key.name!r} may use {excess.per_minute:,} {excess.unit} a minute, and has: "
        f"wait {excess.wait_s:.1f} seconds",
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        retry_after_s=excess.wait_s,
    )
