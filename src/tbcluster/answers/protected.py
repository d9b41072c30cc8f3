"""Encodes a chat so that what a user writes is text and never one of the model's control tokens.

Each such token that stands in a message, tool or template variable is replaced by a mark before the
template is rendered. The text around the marks is then encoded by itself, and what a mark stands
for in parts that are no token.
"""

import copy
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from jinja2 import TemplateError

from tbcluster.answers.added_tokens import LEAD, added_tokens, encode, follows
from tbcluster.core import TokenId
from tbcluster.errors import RequestError

# What templates and mlx-lm's own renderers raise over messages that they do not like.
_TEMPLATE_ERRORS = (
    TemplateError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    RecursionError,
)
# Mistral's templates insist on ids of this shape.
_MISTRAL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_MARK_CHARS = 12
# From here on encoding takes so long that rendering twice does not matter.
LONG_CHAT_CHARS = 1 << 16

# Names that a template's variables cannot have: arguments of what renders it. A client's own
# "chat_template" would be a program without an end to its loops.
RESERVED_NAMES = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "check_length",
        "continue_final_message",
        "conversation",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "sanitize_control_tokens",
        "tokenize",
        "tokenizer",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)

Messages = Sequence[Mapping[str, Any]]


def encode_chat(
    tokenizer: Any,
    messages: Messages,
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    check_length: Callable[[int], None] = lambda _: None,
    **template_kwargs: Any,
) -> list[TokenId]:
    """Token ids of a chat, up to where the assistant's next turn begins. In an assistant's own
    messages the format's reasoning markers stay what they are; all else that looks like a control
    token is encoded as text.

    Args:
        tokenizer: mlx-lm's TokenizerWrapper.
        messages: As `template_messages` makes them.
        tools: In OpenAI's shape.
        check_length: Called before a long chat is encoded, with the number of its characters; may
            raise.
        template_kwargs: What the template is given besides; `RESERVED_NAMES` are not for clients.

    Raises:
        RequestError: The model has no chat template, or its template refuses these messages.
    """
    if not tokenizer.has_chat_template:
        raise RequestError("this model has no chat template: complete a text instead", "messages")
    chat: dict[str, Any] = {
        "messages": _with_ids(tokenizer, [copy.deepcopy(dict(message)) for message in messages])
    }
    if tools:
        chat["tools"] = copy.deepcopy(list(tools))
    _check_text(chat)
    _check_text(template_kwargs, "chat_template_kwargs")
    options = {"add_generation_prompt": True, **template_kwargs}
    marks = _Marks(tokenizer)
    marked = {"messages": [marks.in_message(message) for message in chat["messages"]]}
    if tools:
        marked["tools"] = marks.replaced(chat["tools"])
    # Templates write some of their variables into the prompt: a date, a name, documents.
    variables = {name: marks.replaced(value) for name, value in template_kwargs.items()}
    as_text = {**options, **variables, "tokenize": False}
    if not marks.texts:
        if sum(map(len, _texts(chat))) > LONG_CHAT_CHARS:
            check_length(len(_render(tokenizer, chat, as_text)))
        return list(_render(tokenizer, chat, options))
    parts = marks.parts(_render(tokenizer, marked, as_text))
    check_length(sum(map(len, parts)))
    return marks.encode(parts)


def _render(tokenizer: Any, chat: dict[str, Any], options: dict[str, Any]) -> Any:
    others = {name: value for name, value in chat.items() if name != "messages"}
    try:
        return tokenizer.apply_chat_template(chat["messages"], **others, **options)
    except _TEMPLATE_ERRORS as error:
        if (texts := _with_text_arguments(chat["messages"])) is not None:
            return _render(tokenizer, {**chat, "messages": texts}, options)
        raise RequestError(
            f"the model's chat template refuses these messages: {error}", "messages"
        ) from error


def _with_text_arguments(messages: Messages) -> list[dict[str, Any]] | None:
    """The messages for templates that take a call's arguments as JSON; None if nothing changed."""
    has_changed = False
    turns = []
    for message in messages:
        calls = []
        for call in message.get("tool_calls") or ():
            function = call["function"]
            if not isinstance(function["arguments"], str):
                has_changed = True
                arguments = json.dumps(function["arguments"], ensure_ascii=False)
                function = {**function, "arguments": arguments}
            calls.append({**call, "function": function})
        turns.append({**message, "tool_calls": calls} if calls else dict(message))
    return turns if has_changed else None


def _with_ids(tokenizer: Any, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if tokenizer.init_kwargs.get("tool_parser_type") != "mistral":
        return messages
    for message in messages:
        for call in message.get("tool_calls") or ():
            call["id"] = _mistral_id(call.get("id"))
        if message.get("role") == "tool":
            message["tool_call_id"] = _mistral_id(message.get("tool_call_id"))
    return messages


def _mistral_id(call_id: Any) -> str:
    if isinstance(call_id, str) and _MISTRAL_ID.fullmatch(call_id):
        return call_id
    return sha256(str(call_id).encode()).hexdigest()[:9]


def _check_text(value: Any, param: str = "messages") -> None:
    """Raises: RequestError when a text in `value` cannot be encoded as UTF-8."""
    for text in _texts(value):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"{param} is no valid text: {error}", param) from error


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.items() for part in item for text in _texts(part)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    return []


class _Marks:
    """What was replaced in one chat, and by what. A mark is of letters and digits alone, which
    templates and JSON leave as they are."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.texts: list[str] = []
        self._tokens = added_tokens(tokenizer)
        self._open = f"M{secrets.token_hex(_MARK_CHARS // 2)}N"
        self._close = f"N{secrets.token_hex(_MARK_CHARS // 2)}M"
        # Texts repeat, above all those between tokens that somebody repeats.
        self._known: dict[tuple[str, bool, bool], list[TokenId]] = {}

    def in_message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message with marks in all its texts."""
        is_answer = message.get("role") == "assistant"
        return {
            key: value
            if key == "role"
            else self.replaced(value, is_answer=is_answer and key == "content")
            for key, value in message.items()
        }

    def replaced(self, value: Any, *, is_answer: bool = False) -> Any:
        """`value` with marks in all its texts, keys too; an answer may hold reasoning markers."""
        if isinstance(value, str):
            return self._marked(value, is_answer)
        if isinstance(value, Mapping):
            return {self.replaced(key): self.replaced(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.replaced(item) for item in value]
        return value

    def parts(self, rendered: str) -> list[str]:
        """What the template wrote and, every second part, what a mark stands for.

        Raises:
            RequestError: The template changed a mark.
        """
        parts = re.split(f"{self._open}([0-9]+){self._close}", rendered)
        self._check(parts[::2])
        return [self.texts[int(part)] if number % 2 else part for number, part in enumerate(parts)]

    def encode(self, parts: Sequence[str]) -> list[TokenId]:
        """Token ids of what `parts` gave.

        Raises:
            RequestError: The tokenizer cannot do without a token.
        """
        tokens: list[TokenId] = []
        for number, text in enumerate(parts):
            is_mark, is_first = number % 2 == 1, not tokens
            key = (text, is_mark, is_first)
            if key not in self._known:
                encoded = self._as_text if is_mark else self._of_template
                self._known[key] = encoded(text, is_first=is_first)
            tokens += self._known[key]
        return tokens

    def _marked(self, text: str, is_answer: bool) -> str:
        pattern = self._tokens.in_answer if is_answer else self._tokens.anywhere
        marked = pattern.sub(self._mark, text) if pattern else text
        if not self._tokens.is_normalized:
            return marked
        return self._without_lookalikes(marked, self._tokens.thinking if is_answer else set())

    def _without_lookalikes(self, text: str, allowed: set[TokenId]) -> str:
        """Marks what only the tokenizer's own normalization makes a token of."""
        encoding = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
        spans = zip(encoding.ids, encoding.offsets, strict=True)
        found = [span for token, span in spans if token in self._tokens.ids - allowed]
        for start, end in reversed(found):
            self.texts.append(text[start:end])
            text = f"{text[:start]}{self._open}{len(self.texts) - 1}{self._close}{text[end:]}"
        return text

    def _mark(self, match: re.Match[str]) -> str:
        self.texts.append(match.group())
        return f"{self._open}{len(self.texts) - 1}{self._close}"

    def _check(self, parts: Sequence[str]) -> None:
        half = _MARK_CHARS // 2
        ends = [end for mark in (self._open, self._close) for end in (mark[:half], mark[-half:])]
        rest = "\n".join(parts).lower()
        if any(end.lower() in rest for end in ends):
            raise RequestError(
                f"the model's chat template changes what it is given, and {self.texts[0]!r} could "
                "not be kept from becoming a control token: leave it out",
                "messages",
            )

    def _of_template(self, text: str, *, is_first: bool) -> list[TokenId]:
        """The tokens of a text from the template. Up to its first token it goes on from what
        stands before it."""
        found = self._tokens.anywhere.search(text) if self._tokens.anywhere else None
        split = found.start() if found else len(text)
        return self._encoded(text[:split], is_first=is_first) + encode(self.tokenizer, text[split:])

    def _as_text(self, text: str, *, is_first: bool) -> list[TokenId]:
        """The tokens of a text that is a token itself, without using that token."""
        splits = [[text[:position], text[position:]] for position in range(1, len(text))]
        for parts in [*splits, list(text)]:
            tokens: list[TokenId] = []
            for part in parts:
                tokens += self._encoded(part, is_first=is_first and not tokens)
            if self._tokens.ids.isdisjoint(tokens):
                return tokens
        raise RequestError(f"this model cannot take {text!r} as text: leave it out", "messages")

    def _encoded(self, text: str, *, is_first: bool) -> list[TokenId]:
        """The tokens of a text that may follow others: tokenizers of the SentencePiece kind would
        put a space before it as if it were the first."""
        plain = encode(self.tokenizer, text)
        if is_first or self._tokens.is_seamless or follows(self.tokenizer, plain, text):
            return plain
        for anchor in (self.tokenizer.eos_token or LEAD, LEAD):
            lead, both = (encode(self.tokenizer, whole) for whole in (anchor, anchor + text))
            behind = both[len(lead) :]
            if both[: len(lead)] == lead and follows(self.tokenizer, behind, text):
                return behind
        return plain
