"""Logs for programs: one JSON object per line on standard error."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tbcluster.cli.loading import console

if TYPE_CHECKING:
    # The server's package takes its time to import.
    from tbcluster.server.live.view import LiveEvent

# The lines of these are events of their own.
STRUCTURED = ("tbcluster.requests", "tbcluster.access")
_notes = logging.getLogger("tbcluster.notes")


class JsonFormatter(logging.Formatter):
    """A record as one line: `time`, `level`, `logger`, `event` and `message`, and the fields that
    the record brings in `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Control characters are escaped: nothing in it acts on a terminal or begins a line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_as_json() -> Callable[[str], None]:
    """Write every log line, and what people are told else, as JSON. Returns what notes a line that
    a user should see."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in (*STRUCTURED, _notes.name):
        logging.getLogger(name).setLevel(logging.INFO)
    console.quiet = True
    return note


def note(text: str, event: str = "note", **fields: object) -> None:
    """A line that a user should see, as an event."""
    _notes.info("%s", text, extra={"event": event, "fields": fields})


def note_event(event: "LiveEvent") -> None:
    """Something happened to the rack or its models; notes are logged where they are made."""
    if event.kind != "note":
        note(event.text, event.kind)
