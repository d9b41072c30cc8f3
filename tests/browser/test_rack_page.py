"""The page of a real rack in a real browser: three machines, two cables, what happens to them."""

import re
from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from tbcluster.cluster.trust import MemberFile, TrustFolder
from tests.browser.browsing import (
    PHONE,
    check_contrast,
    chromium,
    keep_picture,
    needs_browser,
    opened,
    overflow_px,
)
from tests.doubles.namespaces import Network, needs_namespaces
from tests.doubles.own_speed import know_speed
from tests.doubles.rack import HTTP_PORT, RackDouble
from tests.rack.racks import listing

# Longer than all waits of a test together, so that the one that failed says so.
pytestmark = [needs_browser, needs_namespaces, pytest.mark.timeout(400)]

URL = f"http://127.0.0.1:{HTTP_PORT}"
PLACES = ("two=0-2", "head=3-5", "three=6-7")
# A node counts as lost after three silent seconds; to be taken back it has to be measured again.
RECOVERY_MS = 90_000


class CabledRack(RackDouble):
    """The head node in the middle, with a cable to each of the other two."""

    def __init__(self, network: Network) -> None:
        network.add("head", "two", "three")
        self.cables = {
            other: network.cable("head", other, ipv6=False) for other in ("two", "three")
        }
        super().__init__(network, "head", "two", "three")

    def serve(self) -> None:
        """Start everything; the nodes' speeds are known."""
        self.enroll_all()
        members = MemberFile(TrustFolder(self.home("head"))).nodes()
        know_speed(self.home("head"), None, node_ids=[member.node_id for member in members])
        self.keep("head", "serve", *[word for place in PLACES for word in ("--place", place)])
        path = self.home("head").parent / "rack.toml"
        addresses = [ends[0].ipv4 for ends in self.cables.values()]
        path.write_text(listing(self.nodes, addresses), encoding="utf-8")
        for node in ("two", "three"):
            self.keep(node, "agent", "--rack", str(path))
        self.await_ready()

    def worker(self, node: str) -> psutil.Process:
        """The stage worker there."""
        (found,) = (
            process
            for process in self.network.processes(node)
            if "tbcluster.stage" in process.cmdline()
        )
        return found


@pytest.fixture(scope="module")
def rack() -> Iterator[CabledRack]:
    with Network() as network, CabledRack(network) as made:
        made.serve()
        yield made


@pytest.fixture(scope="module")
def browser(rack: CabledRack) -> Iterator[Browser]:
    """One that runs on the head node."""
    with rack.network.inside("head"), chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser, URL) as found:
        expect(found.locator("#state")).to_have_text("ok", timeout=RECOVERY_MS)
        yield found


def test_three_nodes_and_two_links_are_drawn(page: Page) -> None:
    nodes = page.locator(".node")
    expect(nodes).to_have_count(3)
    assert sorted(nodes.evaluate_all("all => all.map(n => n.dataset.node)")) == [
        "head",
        "three",
        "two",
    ]
    links = page.locator("path.link")
    expect(links).to_have_count(2)
    # Hidden states go along both, and each says how fast it was measured to be.
    expect(page.locator("path.link.used")).to_have_count(2)
    expect(page.locator(".link-label").first).to_contain_text("Gb/s")
    ends = links.evaluate_all("all => all.map(l => l.dataset.link.split('|').sort().join())")
    assert sorted(ends) == ["head,three", "head,two"]
    # For those who do not see it, the same as a table.
    expect(page.locator("#links tbody tr")).to_have_count(2)
    expect(page.locator("#stages tbody tr")).to_have_count(3)
    expect(page.locator("#plan")).to_contain_text(re.compile("layers 0.2"))


def test_a_chat_answer_streams_in_through_three_machines(page: Page) -> None:
    page.fill("#message", "What is the capital of France?")
    page.press("#message", "Enter")
    expect(page.locator(".entry.assistant .text").last).to_contain_text("Paris")
    expect(page.locator(".speed").last).to_contain_text("tokens/s")
    expect(page.locator("#stages tbody tr").first.locator("td").nth(3)).to_contain_text("ms")
    keep_picture(page, "rack-chat")


def test_a_killed_worker_shows_as_lost_and_comes_back(page: Page, rack: CabledRack) -> None:
    stages = page.locator("#stages tbody tr")
    expect(page.locator("#stages tbody tr[data-state=ready]")).to_have_count(3)
    lost = page.locator('#events li[data-kind="stage_lost"]')
    before = lost.count()
    rack.worker("three").kill()
    expect(lost).to_have_count(before + 1)
    expect(lost.first).to_contain_text("three")
    keep_picture(page, "lost-worker")
    expect(page.locator('#events li[data-kind="recovered"]').first).to_be_visible(
        timeout=RECOVERY_MS
    )
    expect(page.locator("#stages tbody tr[data-state=ready]")).to_have_count(3)
    expect(stages.last).to_contain_text("restarted 1")
    expect(page.locator("#state")).to_have_text("ok")


def test_a_node_that_is_unplugged_shows_as_lost_and_comes_back(
    page: Page, rack: CabledRack
) -> None:
    _, end = rack.cables["three"]
    rack.network.cut(end.node, end.interface)
    node = page.locator('.node[data-node="three"]')
    expect(node).to_have_attribute("data-state", "offline")
    expect(node).to_contain_text("lost")
    expect(page.locator('#events li[data-kind="node_lost"]').first).to_contain_text("three")
    expect(page.locator("path.link.down")).to_have_count(1)
    # Its layers are on the two that are left.
    expect(page.locator("#state")).to_have_text("ok", timeout=RECOVERY_MS)
    expect(page.locator("#stages tbody tr[data-state=ready]")).to_have_count(2)
    keep_picture(page, "lost-node")
    rack.network.mend(end.node, end.interface)
    expect(node).to_have_attribute("data-state", "online", timeout=RECOVERY_MS)
    expect(page.locator('#events li[data-kind="node_back"]').first).to_contain_text("three")
    expect(page.locator("#stages tbody tr[data-state=ready]")).to_have_count(3, timeout=RECOVERY_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_nothing_overflows_and_all_can_be_read(browser: Browser, scheme: str, size: str) -> None:
    context = {"color_scheme": scheme, **({"viewport": PHONE} if size == "phone" else {})}
    with opened(browser, URL, **context) as page:
        expect(page.locator(".node")).to_have_count(3)
        assert overflow_px(page) <= 0
        check_contrast(page)
        keep_picture(page, f"rack-{size}-{scheme}")
