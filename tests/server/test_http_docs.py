"""docs/http.md against the code: every endpoint, field, error code and metric, and its examples."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_origin

import httpx
import pytest
from pydantic import BaseModel

from tbcluster.answers import tool_grammar
from tbcluster.cluster.cluster import Cluster
from tbcluster.core import MAX_GRAMMAR_CHARS
from tbcluster.embeddings import MAX_AT_ONCE
from tbcluster.engine.limits import Limits
from tbcluster.server import connections, embeddings, problems
from tbcluster.server.anthropic import schemas as anthropic_schemas
from tbcluster.server.bodies import MAX_CONTAINERS, MAX_DEPTH, MAX_NAMES, MAX_VALUES
from tbcluster.server.fields import Body
from tbcluster.server.ollama import schemas as ollama_schemas
from tbcluster.server.openai import sampling
from tbcluster.server.openai import schemas as openai_schemas
from tbcluster.server.options import ServerOptions
from tbcluster.server.responses import store
from tbcluster.server.text_endpoints import MAX_DETOKENIZED
from tests.doubles.local_server import LocalServer

ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
SERVER = ROOT / "src" / "tbcluster" / "server"
PRINTED_URL = "http://127.0.0.1:8080"
STATES = {"yes", "no effect", "refused"}
Fields = dict[str, str]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with Cluster(stages=2) as cluster, LocalServer(cluster) as running:
        yield running


@pytest.fixture(scope="module")
def operations(server: LocalServer) -> dict[str, Any]:
    """ "METHOD /path" -> its OpenAPI operation."""
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    return {
        f"{method.upper()} {path}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


# What the docs say


@cache
def sections() -> dict[str, str]:
    """Heading -> the text up to the next one."""
    parts = re.split(r"^#{2,3} (.+)$", DOCS, flags=re.MULTILINE)
    return dict(zip([heading.strip("`") for heading in parts[1::2]], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of all tables' rows, without their headings."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("|---"):
            found.pop()
        elif line.startswith("|"):
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


def told(heading: str) -> Fields:
    """Field -> what becomes of it, of a section and of those whose fields it shares."""
    text = sections()[heading]
    found = {name: row[1] for row in rows(text) for name in re.findall(r"`([^`]+)`", row[0])}
    by_anchor = {anchor(other): other for other in sections()}
    for shared in re.findall(r"^Fields of .*?(?:\n\n|\Z)", text, re.MULTILINE | re.DOTALL):
        for link in re.findall(r"\(#([\w-]+)\)", shared):
            found |= told(by_anchor[link])
    return found


# What the code says


def all_bodies(base: type[Body] = Body) -> Iterator[type[Body]]:
    for body in base.__subclasses__():
        yield body
        yield from all_bodies(body)


def inner_models(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The models within a type, each with "[]" where it is in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    mark = "[]" if get_origin(annotation) is list else ""
    for argument in get_args(annotation):
        for model, inner in inner_models(argument):
            yield model, mark + inner


def fields_of(model: type[BaseModel]) -> dict[str, str | None]:
    """Path of each field, nested ones included -> what has to become of it; None for whatever the
    docs say."""
    found: dict[str, str | None] = {}
    for name, field in model.model_fields.items():
        path = field.alias or name
        found[path] = None
        # pydantic keeps what a type is annotated with beside it.
        for inner, mark in inner_models(field.annotation):
            found |= {f"{path}{mark}.{rest}": state for rest, state in fields_of(inner).items()}
    found |= dict.fromkeys(getattr(model, "ACCEPTED", ()), "no effect")
    found |= dict.fromkeys(getattr(model, "REFUSED", ()), "refused")
    return found


def asked(operation: Any) -> dict[str, str | None]:
    """The fields of an operation's body and query."""
    query = [each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"]
    found: dict[str, str | None] = dict.fromkeys(query)
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        name = schema["$ref"].rpartition("/")[2]
        (model,) = {body for body in all_bodies() if body.__name__ == name}
        found |= fields_of(model)
    return found


def codes() -> set[str]:
    """Every code that an error may have: what is given as, or put into, something called `code`."""
    found = {code for *_, code in problems._ANSWERS if code}
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_keyword = isinstance(node, ast.keyword) and node.arg == "code"
            if is_keyword or (isinstance(node, ast.Assign) and names_code(node)):
                found |= set(texts(node.value))
    return found


def names_code(node: ast.Assign) -> bool:
    return any(ast.unparse(target) == "code" for target in node.targets)


def texts(node: ast.expr) -> Iterator[str]:
    """The texts that an expression may have as its value."""
    if isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


# Both together


def test_every_endpoint_is_listed(operations: dict[str, Any]) -> None:
    listed = rows(sections()["Endpoints"])
    names = {f"{row[0]} {re.findall('`(.+?)`', row[1])[0]}" for row in listed}
    assert names == set(operations)


def test_links_lead_somewhere() -> None:
    known = {anchor(heading) for heading in sections()}
    assert set(re.findall(r"\(#([^)]+)\)", DOCS)) <= known


def test_every_field_is_in_the_section_of_its_endpoint(operations: dict[str, Any]) -> None:
    wrong = {}
    for name, operation in operations.items():
        fields = asked(operation)
        docs = told(name) if fields else {}
        missing, strange = fields.keys() - docs.keys(), docs.keys() - fields.keys()
        other = {
            path
            for path, state in fields.items()
            if docs.get(path) not in (STATES if state is None else {state})
        }
        if missing or strange or other:
            wrong[name] = {"missing": missing, "strange": strange, "other": other - missing}
    assert not wrong


def test_no_section_is_of_an_endpoint_that_is_gone(operations: dict[str, Any]) -> None:
    headings = {heading for heading in sections() if re.match("(GET|POST|DELETE|PUT) /", heading)}
    assert headings <= set(operations)


def test_every_error_code_is_listed() -> None:
    text = sections()["Errors"]
    listed = {code for row in rows(text) for code in re.findall(r"`(\w+)`", row[2])}
    assert listed <= codes() <= set(re.findall(r"`(\w+)`", text))


def test_every_metric_is_listed(server: LocalServer) -> None:
    page = httpx.get(f"{server.url}/metrics").text
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE))
    listed = {row[0].strip("`"): row[1] for row in rows(sections()["Metrics"])}
    assert listed == {name: kind for name, kind in kinds.items() if not name.endswith("_created")}


def test_every_format_of_calls_is_named() -> None:
    text = sections()["Tools"]
    assert {name for name in tool_grammar._WRITERS if f"`{name}`" not in text} == set()


OPTIONS = ServerOptions()
LIMITS = Limits(vocab_size=1, context_length=None)


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Limits and timeouts", f"| {connections.MAX_HEAD_BYTES >> 10} KiB, "),
        ("Limits and timeouts", f" KiB, {OPTIONS.header_timeout_s:g} s |"),
        ("Limits and timeouts", f"| {OPTIONS.max_body_bytes >> 20} MiB (`--max-body`) |"),
        ("Limits and timeouts", f"within a body | {OPTIONS.body_timeout_s:g} s |"),
        ("Limits and timeouts", f"was refused | {OPTIONS.refused_body_s:g} s |"),
        ("Limits and timeouts", f"without a request | {OPTIONS.idle_timeout_s:g} s |"),
        ("Limits and timeouts", f"of its answer | {OPTIONS.write_timeout_s:g} s |"),
        ("Limits and timeouts", f"less than {connections.MIN_READ_BYTES >> 10} KiB, "),
        ("Limits and timeouts", f"wait for a reader | {OPTIONS.max_unread:,} |"),
        ("Limits and timeouts", f"| {OPTIONS.queue_timeout_s:g} s (`--queue-timeout`) |"),
        ("Waiting and recovering", f"after every {OPTIONS.keep_alive_s:g} seconds without a byte"),
        ("Waiting and recovering", f"with status 200, after {OPTIONS.first_wait_s:g} seconds"),
        ("Errors", f"more than {OPTIONS.first_wait_s:g} seconds"),
        ("Limits and timeouts", f"to be loaded | {OPTIONS.load_wait_s:g} s |"),
        ("Limits and timeouts", f"| {OPTIONS.drain_s:g} s (`--drain`) |"),
        ("Limits and timeouts", f"| {MAX_DEPTH} deep, {MAX_NAMES:,} names in one object |"),
        ("Limits and timeouts", f"| {MAX_CONTAINERS:,} lists and objects, {MAX_VALUES:,} values ("),
        ("Limits and timeouts", f"| connections | {connections.MAX_CONNECTIONS:,}, "),
        ("Limits and timeouts", f"(less {connections.OTHER_DESCRIPTORS}) |"),
        ("Limits and timeouts", f"at once | {LIMITS.max_running:,} |"),
        ("Limits and timeouts", f"that wait | {LIMITS.max_waiting:,} |"),
        ("Sampling", f"up to {sampling.MAX_STOPS}, each of 1 to {sampling.MAX_STOP_LENGTH:,} "),
        ("Sampling", f"up to {sampling.MAX_BIASES:,} of them"),
        ("Bounds of chats and completions", f"1 to {sampling.MAX_CHOICES} choices"),
        ("Chat messages", f"Up to {openai_schemas.MAX_MESSAGES:,} messages"),
        ("Chat messages", f"up to {openai_schemas.MAX_TOOLS} tools"),
        ("POST /v1/chat/completions", f"0 to {sampling.MAX_TOP_LOGPROBS} alternatives"),
        ("POST /v1/completions", f"up to {sampling.MAX_PROMPTS} texts"),
        ("POST /v1/completions", f"is {openai_schemas.COMPLETION_MAX_TOKENS} if left out"),
        ("POST /v1/responses", f"up to {store.DEFAULT_MAX_BYTES >> 20} MiB"),
        ("POST /v1/responses", f"{store.DEFAULT_MAX_RESPONSES:,} responses"),
        ("POST /v1/embeddings", f"up to {embeddings.MAX_INPUTS:,} of either"),
        ("POST /v1/messages", f"up to {anthropic_schemas.MAX_STOPS} of 1"),
        ("Ollama options", f"up to {ollama_schemas.MAX_STOPS} texts"),
        ("Ollama options", f"0 to {ollama_schemas.MAX_TEMPERATURE:g}; "),
        ("Ollama options", f"looks at, {ollama_schemas.REPEAT_LAST_N} if left out"),
        ("POST /detokenize", f"up to {MAX_DETOKENIZED:,} token ids"),
        ("Structured output", f"Up to {MAX_GRAMMAR_CHARS:,} characters"),
        ("Tools", f"up to {tool_grammar.MAX_CALLS}; "),
        ("Embeddings", f"Up to {MAX_AT_ONCE} inputs"),
    ],
)
def test_numbers_are_those_of_the_code(heading: str, words: str) -> None:
    assert words in sections()[heading]


def examples(language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", sections()["Examples"], re.MULTILINE | re.DOTALL
    )


@pytest.mark.parametrize("program", examples("python"))
def test_python_examples_run(
    server: LocalServer,
    program: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without it LiteLLM asks the internet for its price list when it is imported.
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    exec(program.replace(PRINTED_URL, server.url), {"__name__": "example"})  # noqa: S102
    assert "Paris" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", examples("sh"))
def test_curl_examples_run(server: LocalServer, command: str) -> None:
    command = command.replace(PRINTED_URL, server.url)
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0
    assert "Paris" in "".join(re.findall(r'"(?:content|text)":"([^"]*)"', ran.stdout))


@pytest.mark.parametrize("body", examples("json"))
def test_bodies_are_taken(body: str) -> None:
    openai_schemas.ChatCompletionRequest.model_validate_json(body)
