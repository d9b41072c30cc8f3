"""TOML files that a person writes, checked: what is wrong, as the writer counts, and what to write
instead."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from tbcluster.errors import RackFileError

Tables = TypeVar("Tables", bound=BaseModel)

CHIP_PATTERN = r"^\S(.{0,62}\S)?\z"
# What to write instead, by pydantic's name of the fault.
ADVICE = {
    "string_type": "write a text in quotes",
    "int_type": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "finite_number": "write a number",
    "greater_than": "write more than {gt:g}",
    "less_than_equal": "write {le} or less",
    "literal_error": "write {expected}",
    "tuple_type": "write a list in brackets; tables are {tables}",
    "model_type": "write a table, {tables}",
    "too_long": "write no more than {max_length}",
    CHIP_PATTERN: 'write a name such as "M4 Pro", in up to 64 characters',
}


def refusal(message: str) -> PydanticCustomError:
    """What a validator raises whose message says it all."""
    return PydanticCustomError("refused", "{message}", {"message": message})


def read_tables(
    path: Path, kind: type[Tables], what: str, tables: tuple[str, ...], example: str
) -> Tables:
    """A file, checked.

    Args:
        kind: Its pydantic model.
        what: What it describes: "rack", for `a rack file`.
        tables: What `[[...]]` may be in it.
        example: Where to find one.

    Raises:
        RackFileError: It cannot be read, is no TOML, or says what cannot be; names the line or the
            field, its value, and what to write instead.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RackFileError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RackFileError(f"{path} is no text in UTF-8: save it as such") from error
    try:
        return kind.model_validate(tomllib.loads(text))
    # RecursionError: some kilobytes of brackets nest deeper than any Python stack.
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RackFileError(f"{path} is no TOML: {error}: see {example}") from error
    except ValidationError as error:
        faults = [_fault(one, what, tables) for one in error.errors(include_url=False)]
        raise RackFileError(
            f"{path} does not describe a {what}:\n  " + "\n  ".join(faults)
        ) from error


def _fault(details: ErrorDetails, what: str, tables: tuple[str, ...]) -> str:
    where = _where(details["loc"], tables)
    match details["type"]:
        case "missing":
            return f"{where} is missing: add it"
        case "extra_forbidden":
            return f"{where} is no field of a {what} file: remove it, or mend its name"
        case "refused":
            return f"{where}: {details['msg']}" if where else details["msg"]
    facts: Mapping[str, Any] = {**details.get("ctx", {}), "tables": _tables(tables)}
    advice = ADVICE.get(facts.get("pattern", details["type"]))
    way_out = details["msg"] if advice is None else advice.format(**facts)
    return f"{where or 'the file'} is {_shown(details['input'])}: {way_out}"


def _tables(names: tuple[str, ...]) -> str:
    return " or ".join(f"[[{name}]]" for name in names)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _where(location: tuple[int | str, ...], tables: tuple[str, ...]) -> str:
    """`[[nodes]] 2: addresses, item 1`: as a reader counts."""
    if len(location) >= 2 and location[0] in tables:
        table = f"[[{location[0]}]] {int(location[1]) + 1}"
        rest = _where(location[2:], tables)
        return f"{table}: {rest}" if rest else table
    return ", ".join(f"item {p + 1}" if isinstance(p, int) else p for p in location)
