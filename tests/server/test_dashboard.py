"""How the page and its files are handed out. `tests/browser` looks at them in a browser."""

import re
from collections.abc import Iterator

import httpx
import pytest

from tbcluster.cluster.cluster import Cluster
from tbcluster.server.dashboard.routes import FILES
from tbcluster.server.keys import KeyFile, KeyRing
from tbcluster.server.options import ServerOptions
from tests.doubles.local_server import LocalServer

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
NAMES = sorted(path.name for path in FILES.iterdir())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """One that asks for keys."""
    keys = KeyFile(tmp_path_factory.mktemp("settings") / "keys.json")
    keys.add("anna")
    options = ServerOptions(keys=KeyRing(keys))
    with Cluster(stages=1) as cluster, LocalServer(cluster, options) as running:
        yield running


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_browsers_get_the_page_at_the_root(server: LocalServer, method: str) -> None:
    answer = httpx.request(method, server.url, headers=BROWSER)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert ("<title>tbcluster</title>" in answer.text) == (method == "GET")


def test_others_get_what_was_there_before() -> None:
    with Cluster(stages=1) as cluster, LocalServer(cluster) as server:
        for answer in (httpx.get(server.url), httpx.head(server.url)):
            assert answer.headers["content-type"].startswith("text/plain")
        assert httpx.get(server.url).text.startswith("tbcluster is running")


def test_the_root_takes_nothing() -> None:
    with Cluster(stages=1) as cluster, LocalServer(cluster) as server:
        for headers in ({}, BROWSER):
            assert httpx.post(server.url, headers=headers, json={}).status_code == 405


def test_before_a_model_is_loaded_browsers_get_the_page_and_others_are_told() -> None:
    with Cluster(stages=1) as cluster, LocalServer(cluster, is_open=False) as server:
        assert httpx.get(server.url, headers=BROWSER).status_code == 200
        assert httpx.get(f"{server.url}/ui/main.js").status_code == 200
        assert httpx.get(server.url).status_code == 503


@pytest.mark.parametrize("name", ["", *(f"ui/{name}" for name in NAMES)])
def test_every_file_is_sealed(server: LocalServer, name: str) -> None:
    answer = httpx.get(f"{server.url}/{name}", headers=BROWSER)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    again = httpx.get(
        f"{server.url}/{name}", headers={**BROWSER, "If-None-Match": answer.headers["etag"]}
    )
    assert again.status_code == (304 if name else 200)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_comes_from_elsewhere_or_stands_inline(name: str) -> None:
    """The policy would forbid it; the page would be broken."""
    text = (FILES / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in text
    assert "https://" not in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
    if name.endswith(".html"):
        assert not re.search(r"<script>|\son\w+=|\sstyle=|<style", text)


def test_files_beyond_the_pages_are_not_given_out(server: LocalServer) -> None:
    for path in ("/ui/", "/ui/../routes.py", "/ui/%2e%2e/routes.py", "/ui/nothing.js"):
        assert httpx.get(f"{server.url}{path}").status_code in (401, 404)


def test_without_a_key_there_are_no_data(server: LocalServer) -> None:
    for path in ("/live", "/live?once=true", "/traces", "/energy", "/metrics"):
        assert httpx.get(f"{server.url}{path}", headers=BROWSER).status_code == 401
