"""What a check says."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"  # the rack serves, slower or less surely than it could
    FAILED = "failed"  # the rack cannot serve


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about a node, or about the whole rack.

    Attributes:
        name: The check, such as "wired-limit"; programs may rely on it.
        node: The node's name, where `fix` is to be typed; None where it is the rack's, and the
            head node's to mend.
        detail: What was found, in words.
        fix: A command, or what to do where no command can; None where nothing needs mending.
    """

    name: str
    node: str | None
    status: Status
    detail: str
    fix: str | None = None


def ok(name: str, node: str | None, detail: str, fix: str | None = None) -> Finding:
    """Nothing is wrong; a `fix` here is advice."""
    return Finding(name, node, Status.OK, detail, fix)


def warning(name: str, node: str | None, detail: str, fix: str | None = None) -> Finding:
    """The rack serves all the same."""
    return Finding(name, node, Status.WARNING, detail, fix)


def failed(name: str, node: str | None, detail: str, fix: str | None = None) -> Finding:
    """The rack cannot serve."""
    return Finding(name, node, Status.FAILED, detail, fix)


def can_serve(findings: Iterable[Finding]) -> bool:
    """Whether nothing was found that keeps the rack from serving."""
    return all(finding.status is not Status.FAILED for finding in findings)
