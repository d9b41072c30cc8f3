"""How a model marks reasoning and tool calls in its answers, as mlx-lm knows it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlx_lm.generate import make_text_state_machine

from tbcluster.answers.call_block import CallBlock
from tbcluster.answers.call_readers import call_reader
from tbcluster.answers.parsing import ParsedCall, parse_calls
from tbcluster.answers.schemas import parser_tools
from tbcluster.answers.splitter import AnswerSplitter
from tbcluster.answers.tool_grammar import tool_call_grammar
from tbcluster.core import TokenId


class AnswerFormat:
    """The answer format of one model.

    Args:
        tokenizer: mlx-lm's TokenizerWrapper.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @property
    def has_tools(self) -> bool:
        return bool(self.tokenizer.has_tool_calling)

    @property
    def has_reasoning(self) -> bool:
        return bool(
            self.tokenizer.has_thinking or "reasoning" in self.tokenizer.response_transitions
        )

    @property
    def knows_effort(self) -> bool:
        """Whether the chat template has a `reasoning_effort`."""
        template = self.tokenizer.chat_template
        return isinstance(template, str) and "reasoning_effort" in template

    @property
    def think_start(self) -> tuple[TokenId, ...]:
        """The tokens that open reasoning; none if the format has no such tokens."""
        return tuple(self.tokenizer.think_start_tokens or ())

    @property
    def think_end(self) -> tuple[TokenId, ...]:
        """The tokens that close reasoning; none if the format has no such tokens."""
        return tuple(self.tokenizer.think_end_tokens or ())

    @property
    def parser_type(self) -> str | None:
        """The name of mlx-lm's tool parser for this format."""
        found = self.tokenizer.init_kwargs.get("tool_parser_type")
        if found is None and self.has_tools:
            return str(self.tokenizer.tool_parser.__module__).rpartition(".")[2]
        return str(found) if found else None

    def starts_thinking(self, prompt: Sequence[TokenId]) -> bool:
        """Whether the prompt has opened reasoning that the answer goes on with."""
        if not self.tokenizer.has_thinking or self.tokenizer.response_initial_state:
            return False
        start = self.tokenizer.rfind_think_start(prompt)
        return bool(start > self.tokenizer.rfind_think_end(prompt))

    def splitter(
        self,
        tools: list[dict[str, Any]] | None,
        starts_thinking: bool,
        splits_reasoning: bool = True,
        is_constrained: bool = False,
    ) -> AnswerSplitter:
        """For one answer.

        Args:
            tools: What the model may call, in OpenAI's shape; without any, what looks like a call
                is text.
            starts_thinking: Whether the prompt has opened reasoning.
            splits_reasoning: Otherwise reasoning is text too, with its markers.
            is_constrained: Whether what is no call has to match a grammar.
        """
        has_tools = bool(tools) and self.has_tools
        has_thinking = splits_reasoning and self.tokenizer.has_thinking
        markers = _Markers(
            has_thinking=has_thinking,
            think_start=self.tokenizer.think_start,
            think_end=self.tokenizer.think_end,
            has_tool_calling=has_tools,
            tool_call_start=self.tokenizer.tool_call_start,
            tool_call_end=self.tokenizer.tool_call_end,
            structural_markers=self.tokenizer.structural_markers,
            # A format may name the state of its calls whether or not it is to be read as one.
            response_transitions={"tool": [], **self.tokenizer.response_transitions},
        )
        initial = "reasoning" if starts_thinking and has_thinking else "normal"
        return AnswerSplitter(
            make_text_state_machine(markers),
            self.tokenizer.response_initial_state or initial,
            self._block_maker(tools or []) if has_tools else None,
            tool_start=self.tokenizer.tool_call_start or "",
            splits_reasoning=splits_reasoning,
            is_constrained=is_constrained,
        )

    def tool_grammar(
        self,
        tools: Sequence[dict[str, Any]],
        *,
        parallel: bool,
        otherwise: Mapping[str, Any] | Literal["text"] | None = None,
    ) -> str:
        """A grammar of calls; see `tool_call_grammar`."""
        return tool_call_grammar(self, tools, parallel=parallel, otherwise=otherwise)

    def _block_maker(self, tools: list[dict[str, Any]]) -> "_BlockMaker":
        parser_type = self.parser_type or ""
        markers = (self.tokenizer.tool_call_start, self.tokenizer.tool_call_end)
        return _BlockMaker(parser_type, self.tokenizer.tool_parser, parser_tools(tools), markers)


@dataclass(frozen=True, slots=True)
class _Markers:
    """The part of a tokenizer that mlx-lm makes a state machine of."""

    has_thinking: bool
    think_start: str | None
    think_end: str | None
    has_tool_calling: bool
    tool_call_start: str | None
    tool_call_end: str | None
    structural_markers: tuple[str, ...]
    response_transitions: dict[str, list[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class _BlockMaker:
    """Makes blocks of tool calls for one answer."""

    parser_type: str
    parser: Any
    tools: list[dict[str, Any]]
    markers: tuple[str, str]

    def __call__(self, first_index: int) -> CallBlock:
        reader = call_reader(self.parser_type, lambda text: self.parse(text)[0])
        return CallBlock(first_index, reader, self.parse, self.markers)

    def parse(self, text: str) -> list[ParsedCall]:
        return parse_calls(self.parser, text, self.tools)
