"""What pydantic finds wrong in a TOML file: as its writer counts, and what to write instead."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

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


def faults_of(error: ValidationError, what: str, tables: tuple[str, ...]) -> str:
    """A line for each.

    Args:
        what: The file: "a rack file".
        tables: What `[[...]]` may be in it.
    """
    faults = error.errors(include_url=False)
    return "\n  ".join(_fault(details, what, tables) for details in faults)


def _fault(details: ErrorDetails, what: str, tables: tuple[str, ...]) -> str:
    where = _where(details["loc"], tables)
    match details["type"]:
        case "missing":
            return f"{where} is missing: add it"
        case "extra_forbidden":
            return f"{where} is no field of {what}: remove it, or mend its name"
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
