"""An event loop whose time passes only while nothing happens, and then at once."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Sets the clock forward instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; nothing from outside is waited for."""
        found = super().select(0)
        if not found:
            assert timeout is not None, "everything waits, and nothing will ever come"
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. Threads have no place in it."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since it was made."""
        return self._virtual.now


def run_virtually(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
