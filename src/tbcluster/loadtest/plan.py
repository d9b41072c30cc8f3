"""What is asked of a server. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Api = Literal["auto", "completions", "chat"]


@dataclass(frozen=True, slots=True)
class Cell:
    """So many clients at once, each with prompts of so many tokens."""

    streams: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What is measured.

    Attributes:
        streams, prompt_tokens: Every combination is a cell.
        output_tokens: That each request asks for.
        repeats: Requests of each client, one after another.
        warm_up: Requests before each cell that do not count.
        shared_prefix: So many tokens all prompts begin with, so that known prefixes help; the
            others are random, so that none do.
        seed: Of the random words.
    """

    streams: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    output_tokens: int = 128
    repeats: int = 3
    warm_up: int = 1
    shared_prefix: int = 0
    seed: int = 0

    def cells(self) -> Iterator[Cell]:
        """The short prompts first, few clients before many."""
        for prompt_tokens in self.prompt_tokens:
            for streams in self.streams:
                yield Cell(streams, prompt_tokens)

    @property
    def num_requests(self) -> int:
        """Of all cells, those to warm up included."""
        return sum(self.warm_up + cell.streams * self.repeats for cell in self.cells())
