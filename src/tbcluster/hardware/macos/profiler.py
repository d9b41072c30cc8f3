"""What `system_profiler TYPE -json` prints."""

import json
from typing import Any

Item = dict[str, Any]


def profiler_items(text: str, data_type: str) -> list[Item] | None:
    """The items of a data type; None if the text is no answer about it."""
    try:
        answer = json.loads(text)
    # RecursionError: a few kilobytes can nest deeper than any Python stack.
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get(data_type), list):
        return None
    return objects(answer[data_type])


def objects(value: Any) -> list[Item]:
    """The JSON objects of a list; none of anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(item: Item, key: str) -> str | None:
    """A text that is there and not empty."""
    value = item.get(key)
    return value.strip() or None if isinstance(value, str) else None
