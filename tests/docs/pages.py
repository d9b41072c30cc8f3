"""The pages of the documentation, cut into what can be checked."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# What is found at the beginning of a line of a block, and anywhere within a sentence.
_COMMAND = re.compile(r"(?:\$ )?(?:sudo )?(?:\.venv/bin/)?(tbcluster |(?:\./)?scripts/\w)")
_BLOCK = re.compile(r"^([ \t]*)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, "" where none is named, and its text."""

    page: str
    language: str
    text: str


def pages() -> tuple[str, ...]:
    """Every page, as a path within the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "configs").glob("*.md")]
    return tuple(sorted(path.relative_to(ROOT).as_posix() for path in found))


@cache
def text_of(page: str) -> str:
    """A page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """A page's fenced blocks, without the indentation of a list that they stand in."""
    return tuple(
        Block(page, language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE))
        for indent, language, text in _BLOCK.findall(text_of(page))
    )


def prose(page: str) -> str:
    """What stands outside of blocks."""
    return _BLOCK.sub("", text_of(page))


def commands(page: str) -> Iterator[str]:
    """The command lines of a page's blocks, without comments."""
    for block in blocks(page):
        if block.language not in ("", "sh", "bash", "console", "text"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in re.split(r" && | \| ", line.strip()):
                if _COMMAND.match(part):
                    yield " ".join(re.sub(r"\s#.*$", "", part).removeprefix("$ ").split())


def spoken_commands(page: str) -> Iterator[str]:
    """The command lines within a page's sentences."""
    for code in re.findall(r"`([^`]+)`", prose(page)):
        for part in " ".join(code.split()).split(" && "):
            if _COMMAND.match(part):
                yield part


def links(page: str) -> Iterator[str]:
    """Where a page's links lead, those to the web left out."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


@cache
def anchors(page: str) -> frozenset[str]:
    """What the headings of a page are called in links, by GitHub's rules."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE):
        name = re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
        if found[name]:
            found[f"{name}-{found[name]}"] = 0
    return frozenset(found)
