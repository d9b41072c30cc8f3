"""Parts of the page that one does not meet by merely looking: its modules with made-up input, and
what stays while all else is drawn anew each second."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tbcluster.cluster.cluster import Cluster
from tbcluster.server.keys import KeyFile, KeyRing
from tbcluster.server.options import ServerOptions
from tests.browser.browsing import needs_browser, opened
from tests.doubles.local_server import LocalServer
from tests.doubles.waiting import wait_until

pytestmark = needs_browser

ASKS = "**/v1/chat/completions"
QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with Cluster(stages=2) as cluster, LocalServer(cluster) as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: LocalServer) -> Iterator[Page]:
    with opened(browser, server.url) as found:
        expect(found.locator("#state")).to_have_text("ok")
        yield found


def two_views_later(page: Page) -> None:
    """Return once everything has been drawn anew, twice."""
    for _ in range(2):
        page.evaluate("document.querySelector('#stages tbody').firstChild.isOld = true")
        page.wait_for_function("() => !document.querySelector('#stages tbody').firstChild.isOld")


PLACES = """async ([count, width]) => {
    const { BOX, places } = await import(new URL("ui/layout.js", document.baseURI));
    const found = places(count, width);
    return { spots: found.spots, height: found.height, box: [found.width, BOX.height] };
}"""


@pytest.mark.parametrize("width", [320, 600, 690, 720, 800, 1000, 1200, 1600])
def test_boxes_never_overlap_nor_leave_the_drawing(page: Page, width: int) -> None:
    for count in range(13):
        found: dict[str, Any] = page.evaluate(PLACES, [count, width])
        spots, (box_width, box_height) = found["spots"], found["box"]
        assert len(spots) == count
        assert found["height"] >= 0
        for index, one in enumerate(spots):
            assert -1 <= one["x"] <= width - box_width + 1
            assert 0 <= one["y"] <= found["height"] - box_height
            for other in spots[index + 1 :]:
                is_beside = abs(one["x"] - other["x"]) >= box_width
                is_below = abs(one["y"] - other["y"]) >= box_height
                assert is_beside or is_below, (count, one, other)


def test_text_behind_a_fence_on_one_line_is_not_lost(page: Page) -> None:
    page.fill(
        "#message", "Run ```pip install x``` or\n```pip install y``` then\n```sh\nls\n```\nend"
    )
    page.press("#message", "Enter")
    said = page.locator(".entry.user .text")
    for part in ("pip install x", "pip install y", "then", "end"):
        expect(said).to_contain_text(part)
    assert said.locator("pre").all_inner_texts() == ["ls\n"]


def test_a_new_chat_knows_nothing_of_an_answer_that_was_running(
    browser: Browser, server: LocalServer
) -> None:
    with opened(browser, server.url) as page:
        page.route(
            ASKS,
            lambda route: route.continue_(
                post_data={**route.request.post_data_json, "ignore_eos": True, "max_tokens": 900}
            ),
        )
        expect(page.locator("#send")).to_be_enabled()
        page.fill("#message", QUESTION)
        page.press("#message", "Enter")
        expect(page.locator(".entry.assistant .text").last).to_contain_text("Paris")
        page.click("#clear")
        expect(page.locator("#send")).to_be_visible()
        page.fill("#message", "Hello")
        with page.expect_request(ASKS) as asked:
            page.press("#message", "Enter")
        assert asked.value.post_data_json["messages"] == [{"role": "user", "content": "Hello"}]
        # Nothing of the first answer is in the log either.
        expect(page.locator(".entry.user")).to_have_count(1)
        page.keyboard.press("Escape")
        expect(page.locator("#send")).to_be_visible()


def test_nobody_is_asked_before_a_model_is_known(browser: Browser, server: LocalServer) -> None:
    with opened(browser, server.url) as page:
        expect(page.locator("#send")).to_be_enabled()
        page.route("**/live", lambda route: route.abort())
        page.reload()
        expect(page.locator("#notice")).to_contain_text("does not answer")
        page.fill("#message", QUESTION)
        page.press("#message", "Enter")
        expect(page.locator("#send")).to_be_disabled()
        assert page.input_value("#message") == QUESTION
        assert page.locator(".entry").count() == 0
        page.unroute("**/live")
        expect(page.locator("#send")).to_be_enabled()
        page.press("#message", "Enter")
        expect(page.locator(".entry.assistant .text").last).to_contain_text("Paris")


def test_whoever_stands_in_a_table_stays_there(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    table = page.locator("#stages .scroll")
    table.focus()
    page.evaluate("document.querySelector('#stages .scroll').scrollLeft = 30")
    two_views_later(page)
    expect(table).to_be_focused()
    assert page.evaluate("document.querySelector('#stages .scroll').scrollLeft") == 30


CURVE = """async () => {
    const { keepRate, showHeader } = await import(new URL("ui/header.js", document.baseURI));
    const view = { version: "0", state: "ok", prompt_tokens_per_s: 0, watts: null };
    const rates = [[0, 9], [400, 4], [401, 2], [401, 2], [451, 1]];
    const views = rates.map(([at, rate]) => ({ ...view, at: 1e10 + at, tokens_per_s: rate }));
    for (const one of views) keepRate(one);
    showHeader(views.at(-1));
    const path = document.querySelector("#spark path").getAttribute("d");
    return [path, document.getElementById("spark-caption").textContent];
}"""


def test_the_curve_is_of_time_not_of_views(page: Page) -> None:
    path, caption = page.evaluate(CURVE)
    # What is older than five minutes has gone, one view counts once, a long silence is a gap.
    assert path == "M 249.0 2.0 L 250.0 18.0 M 300.0 26.0"
    assert caption.endswith("up to 4.00")


def test_a_key_that_was_revoked_can_be_replaced(browser: Browser, tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    old, ring = keys.add("anna"), KeyRing(keys)
    with (
        Cluster(stages=2) as cluster,
        LocalServer(cluster, ServerOptions(keys=ring)) as server,
        opened(browser, server.url) as page,
    ):
        page.fill("#key", old)
        page.press("#key", "Enter")
        expect(page.locator(".node")).to_have_count(1)
        new = keys.add("bert")
        keys.revoke("anna")
        wait_until(lambda: ring.find(old) is None, "the server has seen that")
        page.fill("#message", QUESTION)
        page.press("#message", "Enter")
        expect(page.locator("#key-form")).to_be_visible()
        two_views_later(page)
        expect(page.locator("#key-form")).to_be_visible()
        page.fill("#key", new)
        page.press("#key", "Enter")
        expect(page.locator("#key-form")).to_be_hidden()
        page.fill("#message", QUESTION)
        page.press("#message", "Enter")
        expect(page.locator(".entry.assistant .text").last).to_contain_text("Paris")
