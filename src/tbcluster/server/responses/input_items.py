"""What the items of a request's `input` may be, and the form in which they are kept."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from tbcluster.server.fields import Listed, Nested, refusal
from tbcluster.server.responses.items import new_item_id
from tbcluster.server.responses.store import Item

KINDS = ("message", "reasoning", "function_call", "function_call_output", "item_reference")
TEXT_PARTS = ("input_text", "output_text", "text", "refusal")

ItemId = Annotated[str, Field(min_length=1, max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]


class Part(Nested):
    """A part of a content; text is the only kind served."""

    type: Literal["input_text", "output_text", "text", "refusal"]
    text: str | None = None
    refusal: str | None = None
    # Clients send answers back as they got them.
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    prompt_cache_breakpoint: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        wanted, other = ("refusal", "text") if self.type == "refusal" else ("text", "refusal")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise refusal("input", f"input: a part of type {self.type} has its words in {wanted}")
        return self

    @property
    def words(self) -> str:
        """Its text."""
        return self.text or self.refusal or ""


def _parts(value: Any) -> Any:
    """A content's parts; a text by itself is one part."""
    if isinstance(value, str):
        return [{"type": "input_text", "text": value}]
    for part in value if isinstance(value, list) else ():
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in TEXT_PARTS:
            raise refusal(
                "input",
                f"input: a content part of type {kind[:40]!r} is not served: this model reads text",
            )
    return value


Content = Annotated[
    Listed[Part], BeforeValidator(_parts, json_schema_input_type=str | Listed[Part])
]


class MessageItem(Nested):
    """What someone says."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: ItemId | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None

    def kept(self) -> Item:
        """The item in full."""
        is_answer = self.role == "assistant"
        return {
            "type": "message",
            "id": self.id or new_item_id("message"),
            "role": self.role,
            "status": self.status or "completed",
            "content": [_kept_part(part, is_answer=is_answer) for part in self.content],
        }


class SummaryPart(Nested):
    """A part of a summary of reasoning."""

    type: Literal["summary_text"]
    text: str


class ReasoningPart(Nested):
    """A part of reasoning."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Nested):
    """What the assistant thought."""

    type: Literal["reasoning"]
    id: ItemId | None = None
    summary: Listed[SummaryPart] | None = None
    content: Listed[ReasoningPart] | None = None
    encrypted_content: None = None
    status: Status | None = None

    def kept(self) -> Item:
        """The item in full."""
        return {
            "type": "reasoning",
            "id": self.id or new_item_id("reasoning"),
            "summary": [part.model_dump() for part in self.summary or ()],
            "content": [part.model_dump() for part in self.content or ()],
            "status": self.status or "completed",
        }


class FunctionCallItem(Nested):
    """A function that the assistant called."""

    type: Literal["function_call"]
    call_id: str = Field(min_length=1)
    name: str = Field(min_length=1)
    arguments: str
    id: ItemId | None = None
    status: Status | None = None
    caller: None = None
    namespace: None = None

    def kept(self) -> Item:
        """The item in full."""
        return {
            "type": "function_call",
            "id": self.id or new_item_id("function_call"),
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.arguments,
            "status": self.status or "completed",
        }


class FunctionOutputItem(Nested):
    """What a called function gave."""

    type: Literal["function_call_output"]
    call_id: str = Field(min_length=1)
    output: Content
    id: ItemId | None = None
    name: str | None = None
    status: Status | None = None
    caller: None = None
    namespace: None = None

    def kept(self) -> Item:
        """The item in full."""
        return {
            "type": "function_call_output",
            "id": self.id or new_item_id("function_call_output"),
            "call_id": self.call_id,
            "output": "".join(part.words for part in self.output),
            "status": self.status or "completed",
        }


class ReferenceItem(Nested):
    """An item that is kept here, by its id."""

    type: Literal["item_reference"] | None = None
    id: ItemId


def kind_of(item: Any) -> str | None:
    """An item's type; messages and references may leave it out."""
    if not isinstance(item, dict):
        return getattr(item, "type", "message") or "item_reference"
    kind = item.get("type")
    if kind is None:
        return "item_reference" if set(item) <= {"id", "type"} else "message"
    return kind if isinstance(kind, str) else None


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReferenceItem, Tag("item_reference")],
    Discriminator(kind_of),
]


def _items(value: Any) -> Any:
    """An input's items; a text by itself is what the user says."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    for item in value if isinstance(value, list) else ():
        kind = kind_of(item) if isinstance(item, dict) else None
        if kind is not None and kind not in KINDS:
            raise refusal(
                "input", f"input: an item of type {kind[:40]!r} is not served: leave it out"
            )
    return value


Input = Annotated[
    Listed[InputItem], BeforeValidator(_items, json_schema_input_type=str | Listed[InputItem])
]


def _kept_part(part: Part, *, is_answer: bool) -> dict[str, Any]:
    if is_answer:
        return {"type": "output_text", "text": part.words, "annotations": part.annotations or []}
    return {"type": "input_text", "text": part.words}
