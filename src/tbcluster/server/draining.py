"""Whether the server still takes requests. Data only."""

from dataclasses import dataclass


@dataclass(slots=True)
class Drain:
    """Set once, when the server is to end: running requests finish, new ones are refused."""

    is_draining: bool = False
