"""Links lead to files and headings that there are, and every page is in the index."""

from pathlib import PurePosixPath

import pytest

from tests.docs.pages import ROOT, anchors, links, pages, text_of


def target_of(page: str, link: str) -> tuple[str, str]:
    """The path within the repository and the anchor, "" if there is none."""
    path, _, anchor = link.partition("#")
    if not path:
        return page, anchor
    found = (ROOT / PurePosixPath(page).parent / path).resolve()
    return found.relative_to(ROOT.resolve()).as_posix(), anchor


def dead(page: str) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for link in links(page):
        path, anchor = target_of(page, link)
        is_there = (ROOT / path).exists()
        if not is_there or (anchor and anchor not in anchors(path)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    assert dead(page) == []


def test_there_are_many() -> None:
    assert sum(len(list(links(page))) for page in pages()) > 80
    assert "before" in anchors("docs/rack.md")
    assert "get-v1responsesresponse_id" in anchors("docs/http.md")


def test_every_page_is_in_the_index() -> None:
    listed = set(links("docs/README.md"))
    there = {page.removeprefix("docs/") for page in pages() if page.startswith("docs/")}
    assert there - {"README.md"} <= listed


@pytest.mark.parametrize("page", [page for page in pages() if page.startswith("docs/")])
def test_a_page_begins_with_its_title(page: str) -> None:
    assert text_of(page).startswith("# ")
