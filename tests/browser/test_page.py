"""The page of a server on one machine, in a real browser: chat, keys, themes, sizes."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tbcluster.cluster.cluster import Cluster
from tbcluster.server.keys import KeyFile, KeyRing
from tbcluster.server.options import ServerOptions
from tests.browser.browsing import (
    PHONE,
    check_contrast,
    keep_picture,
    needs_browser,
    opened,
    overflow_px,
)
from tests.doubles.local_server import LocalServer
from tests.doubles.server import ServeProcess

pytestmark = needs_browser

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


def ask(page: Page, text: str) -> None:
    """Type and send."""
    page.fill("#message", text)
    page.press("#message", "Enter")


def answer(page: Page) -> str:
    """The newest answer, once it has ended."""
    expect(page.locator(".entry.assistant").last).not_to_have_attribute("aria-busy", "true")
    return page.locator(".entry.assistant .text").last.inner_text()


def test_an_answer_comes_and_says_how_fast(page: Page) -> None:
    ask(page, QUESTION)
    assert "Paris" in answer(page)
    speed = page.locator(".speed").last.inner_text()
    assert re.search(r"[\d.]+ tokens/s · first token [\d.]+ s · \d+ tokens", speed), speed
    ask(page, "What is tbcluster?")
    answer(page)
    assert page.locator(".entry.user").count() == 2


def test_an_answer_streams_and_can_be_stopped(browser: Browser, server: LocalServer) -> None:
    """The bundled model says little: here it is asked for as much as its context holds."""
    with opened(browser, server.url) as page:
        page.route(
            "**/v1/chat/completions",
            lambda route: route.continue_(
                post_data={**route.request.post_data_json, "ignore_eos": True, "max_tokens": 900}
            ),
        )
        expect(page.locator("#state")).to_have_text("ok")
        ask(page, QUESTION)
        grown = page.locator(".entry.assistant .text").last
        expect(grown).to_contain_text("Paris")
        # More text than that, while it still runs.
        before = grown.inner_text()
        page.wait_for_function(
            "n => document.querySelector('.entry.assistant > .text').innerText.length > n",
            arg=len(before),
        )
        assert page.locator(".entry.assistant").last.get_attribute("aria-busy") == "true"
        running = page.locator("#totals div", has_text="running").locator("dd")
        expect(running).to_have_text("1")
        keep_picture(page, "chat")
        page.keyboard.press("Escape")
        expect(page.locator(".entry.assistant").last).to_contain_text("stopped")
        expect(running).to_have_text("0")
        expect(page.locator("#send")).to_be_visible()


def test_everything_can_be_done_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id"))
        if "message" in seen:
            break
    assert {"theme", "model", "clear", "log", "message"} <= seen
    page.keyboard.type("Hi")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    assert page.input_value("#message") == "Hi\nthere"
    page.keyboard.press("Enter")
    assert answer(page)
    expect(page.locator("#message")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_nothing_overflows_and_all_can_be_read(
    browser: Browser, server: LocalServer, scheme: str, size: str
) -> None:
    context = {"color_scheme": scheme, **({"viewport": PHONE} if size == "phone" else {})}
    with opened(browser, server.url, **context) as page:
        expect(page.locator(".node")).to_have_count(1)
        ask(page, QUESTION)
        answer(page)
        expect(page.locator("#plan li").first).to_be_visible()
        assert overflow_px(page) <= 0
        check_contrast(page)
        keep_picture(page, f"one-machine-{size}-{scheme}")


def test_the_theme_is_chosen_and_remembered(page: Page) -> None:
    def background() -> str:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return colour

    light = background()
    page.click("#theme")
    expect(page.locator("#theme")).to_have_text("Theme: light")
    page.click("#theme")
    expect(page.locator("#theme")).to_have_text("Theme: dark")
    assert background() != light
    page.reload()
    expect(page.locator("#theme")).to_have_text("Theme: dark")
    assert background() != light


def test_text_of_others_is_never_markup(page: Page) -> None:
    ask(page, "<img src=x onerror=alert(1)><b>bold</b>")
    answer(page)
    assert page.locator("#log img, #log b").count() == 0
    expect(page.locator(".entry.user .text")).to_contain_text("<b>bold</b>")


def test_with_keys_nothing_is_seen_without_one(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keys = KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")
    key = keys.add("anna")
    options = ServerOptions(keys=KeyRing(keys))
    with (
        Cluster(stages=2) as cluster,
        LocalServer(cluster, options) as server,
        opened(browser, server.url) as page,
    ):
        expect(page.locator("#key")).to_be_focused()
        assert page.locator(".node").count() == 0
        assert "tbcluster-demo" not in page.content()
        page.keyboard.type("sk-tbc-wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#key-form")).to_contain_text("does not know this API key")
        page.fill("#key", key)
        page.press("#key", "Enter")
        expect(page.locator(".node")).to_have_count(1)
        expect(page.locator("#key-form")).to_be_hidden()
        ask(page, QUESTION)
        assert "Paris" in answer(page)
        page.reload()
        expect(page.locator(".node")).to_have_count(1)
        assert key not in page.url


def test_it_says_that_the_server_is_gone_and_comes_back_by_itself(browser: Browser) -> None:
    with ServeProcess("--local") as first:
        url = first.url
        port = url.rpartition(":")[2]
        with opened(browser, url) as page:
            expect(page.locator("#state")).to_have_text("ok")
            first.process.kill()
            expect(page.locator("#notice")).to_contain_text("does not answer")
            expect(page.locator("#state")).to_have_text("no connection")
            # The page is there before the model is.
            with ServeProcess("--local", "--port", port):
                expect(page.locator("#state")).to_have_text("ok")
                expect(page.locator("#notice")).to_be_hidden()
                expect(page.locator("#events")).to_contain_text("is ready")
