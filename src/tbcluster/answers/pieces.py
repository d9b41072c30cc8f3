"""What an answer's text is made of, in the order in which it was generated."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer itself."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool call begins.

    Attributes:
        index: Counts the answer's calls from 0.
        call_id: The model's own where its format has one.
        name: The tool's; not checked against the tools that were offered.
    """

    index: int
    call_id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """A piece of a call's arguments; all pieces of a complete call make one JSON object."""

    index: int
    text: str


Piece: TypeAlias = Text | Reasoning | CallStart | CallArguments
