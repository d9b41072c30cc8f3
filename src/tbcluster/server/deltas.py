"""An answer as dialects are given it: token by token, or finished. Data only."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic_core import from_json

from tbcluster.answers.pieces import CallArguments, CallStart, Piece, Reasoning, Text
from tbcluster.cluster.energy.book import Energy
from tbcluster.core import FinishReason, SampledToken


@dataclass(frozen=True, slots=True)
class Finish:
    """How a choice ended.

    Attributes:
        has_calls: Whether it ended in tool calls.
        stop: The stop text that ended it, if one did.
    """

    reason: FinishReason
    has_calls: bool
    stop: str | None = None


class Delta(NamedTuple):
    """What one token added to one choice; the last of a choice carries `finish`. `sampled` holds
    the tokens that may be told of now (see `answering.ChoiceReader`)."""

    choice: int
    pieces: list[Piece]
    sampled: tuple[SampledToken, ...]
    finish: Finish | None


@dataclass(slots=True)
class Usage:
    """Token counts of a whole request, and when it ran.

    Attributes:
        started_at: When its prompt was begun, in seconds on the engine's clock, as the next two.
        first_token_at: When the first choice had its first token.
        last_token_at: When the newest token of any choice came.
        energy: What it took; None where nobody knows, and before its end.
    """

    num_prompt: int
    num_cached: int = 0
    num_generated: int = 0
    num_reasoning: int = 0
    started_at: float = 0.0
    first_token_at: float = 0.0
    last_token_at: float = 0.0
    energy: Energy | None = None

    @property
    def num_total(self) -> int:
        return self.num_prompt + self.num_generated


@dataclass(slots=True)
class Call:
    """A tool call of a finished answer; `arguments` is JSON."""

    call_id: str
    name: str
    arguments: str = ""

    def parsed(self) -> dict[str, Any]:
        """The arguments as an object: of a call that was cut off what is complete of them, and of
        one that is no JSON its text, in the wrapping that Anthropic advises."""
        try:
            arguments = from_json(self.arguments or "{}", allow_inf_nan=False, allow_partial=True)
        except ValueError:
            return {"INVALID_JSON": self.arguments}
        return arguments if isinstance(arguments, dict) else {"INVALID_JSON": self.arguments}


@dataclass(slots=True)
class Choice:
    """One finished choice.

    Attributes:
        deltas: What it was made of, token by token.
    """

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    deltas: list[Delta] = field(default_factory=list)
    finish: Finish | None = None

    @property
    def pieces(self) -> list[Piece]:
        """What text, reasoning and calls were made of, in the order in which they came."""
        return [piece for delta in self.deltas for piece in delta.pieces]

    @property
    def sampled(self) -> list[SampledToken]:
        """Its tokens."""
        return [token for delta in self.deltas for token in delta.sampled]

    def add(self, delta: Delta) -> None:
        """Take one more delta in."""
        self.deltas.append(delta)
        self.finish = delta.finish
        for piece in delta.pieces:
            match piece:
                case Text(text):
                    self.text += text
                case Reasoning(text):
                    self.reasoning += text
                case CallStart(_, call_id, name):
                    self.calls.append(Call(call_id, name))
                case CallArguments(index, text):
                    self.calls[index].arguments += text
