"""A real Chromium without a window, and what the tests ask of a page.

Screenshots are kept in the folder that TBCLUSTER_ARTIFACTS names, or in tests/artifacts.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MACS = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Set where the tests must not be left out.
NEEDED = "TBCLUSTER_NEEDS_BROWSER"
ARTIFACTS = Path(os.environ.get("TBCLUSTER_ARTIFACTS", Path(__file__).parent.parent / "artifacts"))
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
LONG_MS = 30_000
expect.set_options(timeout=LONG_MS)


def chromium_path() -> str | None:
    """Where this machine's is."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return found or (str(MACS) if MACS.exists() else None)


needs_browser = pytest.mark.skipif(
    chromium_path() is None and not os.environ.get(NEEDED),
    reason="no Chromium here: scripts/browser installs one",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """One that runs on the calling thread's network."""
    path = chromium_path()
    assert path is not None, f"{NEEDED} is set, and there is no Chromium: run scripts/browser"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """The page in a window of its own, which must not complain of anything."""
    complaints: list[str] = []
    with browser.new_context(**{"viewport": DESKTOP, **context}) as window:
        page = window.new_page()
        page.set_default_timeout(LONG_MS)
        page.on("pageerror", lambda error: complaints.append(f"{error}"))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type == "error" else None,
        )
        page.goto(url)
        yield page
    # A refusal is told by the page itself, and the browser writes it down besides.
    assert [one for one in complaints if "Failed to load resource" not in one] == []


def keep_picture(page: Page, name: str) -> None:
    """Keep what is seen now."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def overflow_px(page: Page) -> int:
    """How much wider than the window the page is."""
    found: int = page.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
    return found


# Relative luminance and contrast are WCAG's. Text on something see-through stands on what is below.
LOWEST_CONTRAST = """() => {
  const channel = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) =>
    0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  let lowest = { contrast: 99, text: "" };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || !element.checkVisibility()) continue;
    if (["SCRIPT", "NOSCRIPT", "OPTION"].includes(element.tagName)) continue;
    const [front, back] = [getComputedStyle(element).color, ground(element)].map((colour) =>
      luminance(Array.isArray(colour) ? colour : parse(colour)));
    const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    if (contrast < lowest.contrast) lowest = { contrast, text: node.textContent.trim() };
  }
  return lowest;
}"""


def check_contrast(page: Page) -> None:
    """All text can be read by those who see little: 4.5 to 1, WCAG's level AA."""
    lowest = page.evaluate(LOWEST_CONTRAST)
    assert lowest["contrast"] >= 4.5, lowest
