"""Which grammar an answer has to match: of what the client asks for, and of its tools."""

from collections.abc import Mapping
from typing import Any, Literal

from tbcluster.answers.format import AnswerFormat
from tbcluster.cluster.cluster import Cluster
from tbcluster.errors import RequestError
from tbcluster.server.ask import Constraint, Tool, Tools

# What an answer may be besides tool calls.
Otherwise = Mapping[str, Any] | Literal["text"] | None


class Constraints:
    """Makes the grammars of one model; each comes as llguidance's own serialization."""

    def __init__(self, cluster: Cluster, answer_format: AnswerFormat) -> None:
        self._grammars = cluster.grammars
        self._format = answer_format

    def of_text(self, constraint: Constraint | None) -> str | None:
        """Of an answer without tools.

        Raises:
            RequestError: The constraint cannot be served; its own `param` is named.
        """
        if constraint is None:
            return None
        value, param = constraint.value, constraint.param
        match constraint.kind:
            case "json_object":
                return self._grammars.json_object(param)
            case "json_schema":
                return self._grammars.json_schema(value, param)
            case "regex":
                return self._grammars.regex(value, param)
            case "grammar":
                return self._grammars.lark(value, param)

    def of_chat(self, tools: Tools, constraint: Constraint | None) -> str | None:
        """Of an answer that may hold tool calls.

        Raises:
            RequestError: What is asked for excludes itself, or cannot be served.
        """
        if tools.choice in ("required", "named"):
            if constraint is not None:
                raise RequestError(
                    f"{constraint.param} and a tool_choice that forces a call exclude each other: "
                    "choose one",
                    constraint.param,
                )
            return self._calls(tools, _forced(tools), None)
        if tools.choice == "none" or not tools.offered:
            return self.of_text(constraint)
        if constraint is not None:
            return self._calls(tools, tools.offered, self._schema(constraint))
        if any(tool["function"].get("strict") for tool in tools.offered):
            return self._calls(tools, tools.offered, "text")
        return None

    def _calls(self, tools: Tools, offered: tuple[Tool, ...], otherwise: Otherwise) -> str:
        if not self._format.has_tools:
            raise RequestError("this model's chat template knows no tools: leave them out", "tools")
        text = self._format.tool_grammar(offered, parallel=tools.is_parallel, otherwise=otherwise)
        return self._grammars.lark(text, "tools")

    def _schema(self, constraint: Constraint) -> Mapping[str, Any]:
        """What an answer without a call has to satisfy."""
        if constraint.kind == "json_object":
            return {"type": "object"}
        if constraint.kind == "json_schema":
            # Checked by itself first, so that what is wrong with it is said of it.
            self._grammars.json_schema(constraint.value, constraint.param)
            return dict(constraint.value)
        raise RequestError(
            f'{constraint.param} would forbid every tool call: set tool_choice to "none", or leave '
            "the tools out",
            constraint.param,
        )


def _forced(tools: Tools) -> tuple[Tool, ...]:
    """The tools one of which has to be called."""
    if tools.choice == "required":
        if not tools.offered:
            raise RequestError("tool_choice asks for a call, and there are no tools", "tool_choice")
        return tools.offered
    named = tuple(tool for tool in tools.offered if tool["function"]["name"] == tools.name)
    if not named:
        raise RequestError(
            f"tool_choice names {str(tools.name)[:80]!r}, which is not among the tools",
            "tool_choice",
        )
    return named
