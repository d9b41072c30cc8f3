"""Bytes that are no HTTP, half of a request, or several at once; clients that do not read."""

import random

from tests.doubles.malformed.attack import Attack, Behaviour, as_json, get, post
from tests.doubles.malformed.fields import right_body

CHAT = "/v1/chat/completions"
MIB = 1 << 20
TLS_HELLO = b"\x16\x03\x01\x00\x7a\x01\x00\x00\x76\x03\x03" + bytes(range(111))
HOST = "Host: localhost"


def head(*lines: str) -> bytes:
    """Lines as they are, and an empty one."""
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


BAD_HEADS = {
    "a request line of one word": head("GET", HOST),
    "a request line in another order": head("/ GET HTTP/1.1", HOST),
    "two blanks": head("GET  /health  HTTP/1.1", HOST),
    "an unknown version": head("GET /nothing HTTP/9.9", HOST),
    "a version without a number": head("GET /nothing HTTP/x", HOST),
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "line feeds alone": b"GET /nothing HTTP/1.1\nHost: localhost\n\n",
    "empty lines first": b"\r\n" * 1000 + get("/nothing"),
    "a TLS hello": TLS_HELLO,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a NUL in the request line": b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "raw bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no Host": head("GET /nothing HTTP/1.1"),
    "two Hosts": head("GET /nothing HTTP/1.1", HOST, "Host: example.org"),
    "a foreign Host": head("GET /v1/models HTTP/1.1", "Host: example.org"),
    "a Host that is none": head("GET /nothing HTTP/1.1", "Host: [::"),
    "a blank in a header's name": head("GET /nothing HTTP/1.1", HOST, "X Y: z"),
    "a header without a name": head("GET /nothing HTTP/1.1", HOST, ": z"),
    "a header without a colon": head("GET /nothing HTTP/1.1", HOST, "nothing"),
    "a NUL in a header": head("GET /nothing HTTP/1.1", HOST, "X: a\x00b"),
    "a folded header": head("GET /nothing HTTP/1.1", HOST, "X: a", "  b"),
    "a header of 1 MB": head("GET /nothing HTTP/1.1", HOST, "X: " + "a" * MIB),
    "a header's name of 1 MB": head("GET /nothing HTTP/1.1", HOST, "a" * MIB + ": x"),
    "10,000 headers": head("GET /nothing HTTP/1.1", HOST, *(f"X-{i}: y" for i in range(10_000))),
    "a path of 1 MB": get("/" + "a" * MIB),
    "an upgrade to HTTP/2": get("/nothing", "Upgrade: h2c", "Connection: Upgrade"),
    "a WebSocket": get(
        CHAT,
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ),
    "a request id that splits": get("/nothing", "X-Request-Id: a b<script>"),
    "a key that is none": get("/nothing", "Authorization: Bearer \xff", "X-Api-Key: "),
}
ODD_PATHS = (
    "/%00",
    "/v1/models/%00",
    "/v1/models/%ff%fe",
    "/v1/models/..%2f..%2fetc%2fpasswd",
    "/../../etc/passwd",
    "/docs/../../etc/passwd",
    "/static-offline-docs/../../../../etc/passwd",
    "/static-offline-docs/%2e%2e/%2e%2e/etc/passwd",
    "/static-offline-docs/%00",
    "/v1/responses/%00",
    "//",
    "/v1//chat/completions",
    "/v1/models/" + "a" * 50_000,
    "/nothing?" + "a" * 50_000,
    "/nothing?a=%ff&b[]=%00",
    "/nothing;a=b#c",
    "http://example.org/",
    "/%",
    "/%zz",
    "*",
)
BAD_LENGTHS = ("-1", "+5", "5, 6", "1e3", "0x10", "abc", "", "9" * 30, "9" * 5000, "5 5")
BAD_CHUNKS = {
    "no size": b"\r\nhello\r\n",
    "a size that is none": b"zz\r\nhello\r\n",
    "a negative size": b"-5\r\nhello\r\n",
    "an enormous size": b"f" * 40 + b"\r\nhello\r\n",
    "more than was announced": b"2\r\nhello\r\n0\r\n\r\n",
    "an endless extension": b"5;" + b"x" * MIB,
    "endless trailers": b"0\r\n" + b"X: y\r\n" * 50_000,
    "noise": bytes(range(256)) * 8,
}
METHODS = ("DELETE", "PUT", "PATCH", "TRACE", "OPTIONS", "BREW", "get", "GET", "X" * 1000)


def bad_head(source: random.Random, path: str, model: str) -> Attack:
    """A head that no client writes."""
    name = source.choice(sorted(BAD_HEADS))
    return Attack(name, "/nothing", BAD_HEADS[name], may_close=True)


def noise(source: random.Random, path: str, model: str) -> Attack:
    """Random bytes, with an end of the head among them."""
    data = source.randbytes(source.randrange(1, 5000)) + b"\r\n\r\n"
    return Attack("noise", "/nothing", data, may_close=True)


def odd_path(source: random.Random, path: str, model: str) -> Attack:
    """A path that leads nowhere, or out of the house."""
    odd = source.choice(ODD_PATHS)
    return Attack(f"GET {odd[:60]}", odd, get(odd), may_close=True)


def bad_method(source: random.Random, path: str, model: str) -> Attack:
    """A method that the endpoint does not know."""
    method = source.choice(METHODS)
    data = head(f"{method} {path} HTTP/1.1", HOST, "Content-Length: 0")
    return Attack(f"{method[:20]}", path, data)


def bad_length(source: random.Random, path: str, model: str) -> Attack:
    """A Content-Length that is none, or too large."""
    length = source.choice(BAD_LENGTHS)
    data = post(path, b"hello", length="@").replace(b"@", length.encode())
    return Attack(f"Content-Length: {length[:30]}", path, data, Behaviour.STALL, may_close=True)


def two_lengths(source: random.Random, path: str, model: str) -> Attack:
    """Two lengths of one body."""
    body = as_json(right_body(path, model))
    other = source.choice(
        [
            f"Content-Length: {len(body) + 5}",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: gzip",
        ]
    )
    return Attack(f"also {other}", path, post(path, body, other), Behaviour.STALL, may_close=True)


def bad_chunks(source: random.Random, path: str, model: str) -> Attack:
    """A chunked body that is none."""
    name = source.choice(sorted(BAD_CHUNKS))
    lines = (f"POST {path} HTTP/1.1", HOST, "Content-Type: application/json")
    data = head(*lines, "Transfer-Encoding: chunked") + BAD_CHUNKS[name]
    return Attack(f"chunks: {name}", path, data, Behaviour.STALL, may_close=True)


def body_too_short(source: random.Random, path: str, model: str) -> Attack:
    """A body that stays away, in part or at all."""
    body = as_json(right_body(path, model))
    kept = source.randrange(len(body))
    expect = ["Expect: 100-continue"] if source.random() < 0.3 else []
    data = post(path, body[:kept], *expect, length=str(len(body)))
    behaviour = source.choice([Behaviour.STALL, Behaviour.LEAVE, Behaviour.RESET])
    return Attack(f"{kept} bytes of {len(body)} with {expect}", path, data, behaviour)


def body_too_long(source: random.Random, path: str, model: str) -> Attack:
    """More of a body than was announced: the rest is read as a request."""
    body = as_json(right_body(path, model))
    data = post(path, body, length=str(source.randrange(len(body))))
    return Attack("more than announced", path, data, num_answers=2, may_close=True)


def body_over_limit(source: random.Random, path: str, model: str) -> Attack:
    """A body that is announced, or sent, above the limit."""
    if source.random() < 0.9:
        data = post(path, b"{", length=str(source.choice([33 * MIB, 10**12, 2**63])))
        return Attack("a body announced too long", path, data, Behaviour.STALL)
    lines = (f"POST {path} HTTP/1.1", HOST, "Content-Type: application/json")
    chunk = b"%x\r\n" % MIB + b" " * MIB + b"\r\n"
    data = head(*lines, "Transfer-Encoding: chunked") + chunk * 33
    return Attack("a body of 33 MB in chunks", path, data, may_close=True)


def slow_head(source: random.Random, path: str, model: str) -> Attack:
    """A head that does not end in time."""
    data = post(path, b"")
    kept = source.randrange(len(data) - 2)
    if source.random() < 0.5:
        rest = b"X: " + b"y" * 10_000
        return Attack("a dripping head", path, data[:-2], Behaviour.DRIP, rest, may_close=True)
    behaviour = source.choice([Behaviour.STALL, Behaviour.LEAVE, Behaviour.RESET])
    return Attack(f"{kept} bytes of a head", path, data[:kept], behaviour, may_close=True)


def slow_body(source: random.Random, path: str, model: str) -> Attack:
    """A short wrong body that comes byte by byte, and is answered."""
    body = as_json({"model": model, "wrong": 1})[-12:]
    whole = post(path, body)
    return Attack("a dripping body", path, whole[: -len(body)], Behaviour.DRIP, body)


def pipelined(source: random.Random, path: str, model: str) -> Attack:
    """Several requests at once."""
    garbage = post(path, b"{")
    kind = source.choice(["good", "wrong", "good, then noise", "wrong, then half a request"])
    if kind == "good":
        return Attack(
            "50 requests at once", path, get("/health") * 50, num_answers=50, may_succeed=True
        )
    if kind == "wrong":
        return Attack("20 wrong requests at once", path, garbage * 20, num_answers=20)
    if kind == "good, then noise":
        data = get("/health") + source.randbytes(300) + b"\r\n\r\n"
        return Attack(kind, path, data, num_answers=2, may_succeed=True, may_close=True)
    return Attack(kind, path, garbage + garbage[:40], Behaviour.STALL, may_close=True)


def deaf_to_pages(source: random.Random, path: str, model: str) -> Attack:
    """Asks for many large pages and reads none."""
    data = get("/openapi.json") * 200
    return Attack("200 pages, unread", "/openapi.json", data, Behaviour.DEAF, may_succeed=True)


def deaf_to_a_stream(source: random.Random, path: str, model: str) -> Attack:
    """Asks for a long stream and reads none of it."""
    body = {**_endless(model), "n": 2, "logprobs": 20, "max_tokens": 200}
    data = post("/v1/completions", as_json(body))
    return Attack("a stream, unread", "/v1/completions", data, Behaviour.DEAF, may_succeed=True)


def leaves_early(source: random.Random, path: str, model: str) -> Attack:
    """A right request whose client is gone before its answer is there."""
    body = {**_endless(model), "stream": source.random() < 0.7}
    behaviour = source.choice([Behaviour.LEAVE, Behaviour.RESET, Behaviour.ABANDON])
    if not body["stream"] and behaviour is Behaviour.ABANDON:
        behaviour = Behaviour.LEAVE
    data = post("/v1/completions", as_json(body))
    return Attack("gone early", "/v1/completions", data, behaviour, may_succeed=True)


def _endless(model: str) -> dict[str, object]:
    return {
        "model": model,
        "prompt": [300, 301],
        "max_tokens": 900,
        "ignore_eos": True,
        "stream": True,
        "cache_prompt": False,
    }


# Maker -> how often, against the others. What the model has to work for comes rarely.
MAKERS = {
    bad_head: 6,
    noise: 2,
    odd_path: 3,
    bad_method: 2,
    bad_length: 2,
    two_lengths: 2,
    bad_chunks: 2,
    body_too_short: 3,
    body_too_long: 2,
    body_over_limit: 1,
    slow_head: 3,
    slow_body: 1,
    pipelined: 2,
    deaf_to_pages: 1,
    deaf_to_a_stream: 0.5,
    leaves_early: 2,
}
