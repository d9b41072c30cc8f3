"""What bodies of all dialects share: types are strict, and no field is ignored."""

from typing import Annotated, Any, ClassVar, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, FailFast, model_validator
from pydantic_core import PydanticCustomError

T = TypeVar("T")


class _FirstFault(FailFast):
    """pydantic's own, that can be part of a union."""

    def __hash__(self) -> int:
        return hash(self.fail_fast)


# A list of which only the first wrong item is complained about: there may be a million.
Listed = Annotated[list[T], _FirstFault()]


def one_by_one(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """A text or token array, or several of either, as a list of them."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [given]
    return cast(list[str | list[int]], given)


def refusal(param: str, message: str) -> PydanticCustomError:
    """A complaint about one field, which is named in the error's context."""
    return PydanticCustomError("refused", "{message}", {"message": message, "param": param})


class Nested(BaseModel):
    """A part of a body: fields that it does not name are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Body(BaseModel):
    """A request's body. Fields that are not declared are looked up in two tables.

    Attributes:
        ACCEPTED: The caller's own bookkeeping: taken, and of no effect here.
        REFUSED: Known fields that are not served, with the values that ask for nothing special.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    ACCEPTED: ClassVar[frozenset[str]] = frozenset()
    REFUSED: ClassVar[dict[str, tuple[Any, ...]]] = {}

    @model_validator(mode="after")
    def _refuse_by_name(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name in self.ACCEPTED:
                continue
            if name not in self.REFUSED:
                raise refusal(name, f"there is no field {name[:80]!r}")
            if value not in self.REFUSED[name]:
                raise refusal(name, f"{name} is not served: leave it out")
        return self
