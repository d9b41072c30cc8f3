"""How many requests are open, and whether more may come."""

import threading
from collections.abc import Callable

from tbcluster.errors import QueueFullError, TbclusterError


class OpenRequests:
    """Counts requests from their submission to their end. Thread-safe.

    What is handed over under its lock comes before whoever refuses requests from then on has seen
    the queue for the last time: each request is refused here, or answered there.
    """

    def __init__(self) -> None:
        self.num_open = 0
        self._lock = threading.Lock()
        self._closed_by: TbclusterError | None = None
        self._starved_by: TbclusterError | None = None

    def enter(self, most: int, hand_over: Callable[[], None]) -> None:
        """One more, if there are fewer than `most`.

        Raises:
            QueueFullError: There are not.
            TbclusterError: None are taken now; this says why.
        """
        with self._lock:
            if (refusal := self._refusal(is_probe=False)) is not None:
                # Without the traceback that earlier raises have hung on it.
                raise refusal.with_traceback(None)
            if self.num_open >= most:
                raise QueueFullError(f"{self.num_open} requests are open already: try again later")
            self.num_open += 1
            hand_over()

    def enter_probe(self, hand_over: Callable[[], None]) -> None:
        """One more, which does not queue with the others.

        Raises:
            TbclusterError: No requests will ever be answered again; this says why.
        """
        with self._lock:
            if self._closed_by is not None:
                raise self._closed_by.with_traceback(None)
            self.num_open += 1
            hand_over()

    def move_in(self, number: int, hand_over: Callable[[], None]) -> TbclusterError | None:
        """So many more, which were open elsewhere; what to tell them if they are not taken."""
        with self._lock:
            refusal = self._refusal(is_probe=False)
            if refusal is None:
                self.num_open += number
                hand_over()
            return refusal

    def leave(self) -> None:
        """One has ended."""
        with self._lock:
            self.num_open -= 1

    def refuse(self, error: TbclusterError) -> None:
        """Take none until `accept`."""
        with self._lock:
            self._starved_by = error

    def accept(self) -> None:
        """Take them again."""
        with self._lock:
            self._starved_by = None

    def close(self, error: TbclusterError) -> None:
        """Never take one again."""
        with self._lock:
            self._closed_by = error

    def refusal(self, *, is_probe: bool) -> TbclusterError | None:
        """Why a request that was taken cannot be answered any more."""
        with self._lock:
            return self._refusal(is_probe=is_probe)

    def _refusal(self, *, is_probe: bool) -> TbclusterError | None:
        return self._closed_by or (None if is_probe else self._starved_by)
