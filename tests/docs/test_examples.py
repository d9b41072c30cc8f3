"""The programs, requests, files and names of metrics in the documentation.

Those of docs/http.md are run by tests/server/test_http_docs.py.
"""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator

import httpx
import pytest
import yaml

from tbcluster.cluster.cluster import Cluster
from tests.docs.pages import Block, blocks, pages, text_of
from tests.doubles.local_server import LocalServer

PRINTED_URL = "http://127.0.0.1:8080"
ELSEWHERE = "docs/http.md"
# What a histogram or summary has beside its own name.
PARTS = ("_bucket", "_count", "_sum")
# Programs that cannot run here, by a line of theirs.
NOT_RUN = {"with tbcluster.Rack() as rack:": "takes a rack: tests/doubles/fetch_driver.py has one"}


def of(*languages: str) -> list[Block]:
    """The blocks in these languages, of all pages but the one that has a test of its own."""
    return [
        block
        for page in pages()
        if page != ELSEWHERE
        for block in blocks(page)
        if block.language in languages
    ]


def named(block: Block) -> str:
    return f"{block.page}: {block.text.strip().splitlines()[0]}"


def curls() -> Iterator[str]:
    """Every curl command, with what it sends."""
    for block in of("sh", "bash", ""):
        for found in re.findall(r"^curl (?:[^'\n]|'[^']*')*", block.text, re.MULTILINE):
            yield found.partition(" # ")[0]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with Cluster(stages=2) as cluster, LocalServer(cluster) as running:
        yield running


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("command", sorted(set(curls())))
def test_a_request_is_answered(server: LocalServer, command: str) -> None:
    command = command.replace(PRINTED_URL, server.url) + " --fail --max-time 60"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    if "capital of France" in command:
        assert "Paris" in "".join(re.findall(r'"(?:content|text)":"([^"]*)"', ran.stdout))


@pytest.mark.parametrize("block", of("python"), ids=named)
def test_a_program_runs(
    server: LocalServer, block: Block, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, because in NOT_RUN.items():
        if line in block.text:
            compile(block.text, named(block), "exec")
            pytest.skip(because)
    program = block.text.replace(PRINTED_URL, server.url)
    exec(compile(program, named(block), "exec"), {"__name__": "example"})  # noqa: S102
    assert re.search("Paris|42", capsys.readouterr().out)


@pytest.mark.parametrize("block", of("json", "toml", "yaml"), ids=named)
def test_a_file_can_be_read(block: Block) -> None:
    readers = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
    assert readers[block.language](block.text)


def alerts() -> list[dict[str, str]]:
    """The rules for Prometheus that the pages have."""
    contents = [yaml.safe_load(block.text) for block in of("yaml")]
    groups = [group for content in contents for group in content.get("groups", ())]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_have_a_name_and_a_balanced_expression() -> None:
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        for opened, closed in ("()", "[]", "{}"):
            assert rule["expr"].count(opened) == rule["expr"].count(closed), rule


def test_every_metric_that_is_named_exists(server: LocalServer) -> None:
    page = httpx.get(f"{server.url}/metrics").text
    known = set(re.findall(r"^# TYPE (\w+)", page, re.MULTILINE))
    known |= {name + part for name in known for part in PARTS}
    text = "\n".join(text_of(page) for page in pages())
    found = set(re.findall(r"\btbcluster_[a-z_]+[a-z]\b", text))
    assert len(found) > 20
    assert found <= known
