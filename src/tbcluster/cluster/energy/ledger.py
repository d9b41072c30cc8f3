"""What requests cost, by model and by key, since the server started."""

import threading
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Bill:
    """A request that has ended.

    Attributes:
        key: The name of the key it came with; None without one.
        compute_s: What stages computed for it.
        num_tokens: That it generated.
        ended_at: On the clock of its outputs.
    """

    model: str
    key: str | None
    compute_s: float
    num_tokens: int
    ended_at: float


@dataclass(frozen=True, slots=True)
class Costs:
    """Of several requests together.

    Attributes:
        num_tokens: That they generated.
        num_priced_tokens: Those of them whose joules are known.
        is_estimate: Whether a part was not metered.
    """

    num_requests: int = 0
    num_tokens: int = 0
    joules: float = 0.0
    num_priced_tokens: int = 0
    is_estimate: bool = False

    @property
    def joules_per_token(self) -> float | None:
        """None before there is any."""
        return self.joules / self.num_priced_tokens if self.num_priced_tokens else None


@dataclass(slots=True)
class Ledger:
    """Thread-safe. Tokens are counted at once, joules when it is known how many there were."""

    by_model: dict[str, Costs] = field(default_factory=dict)
    by_key: dict[str, Costs] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: list[Bill] = field(default_factory=list)

    def enter(self, bill: Bill) -> None:
        """A request has ended."""
        with self._lock:
            self._open.append(bill)
            for costs, name in self._lines(bill):
                before = costs.get(name, Costs())
                costs[name] = replace(
                    before,
                    num_requests=before.num_requests + 1,
                    num_tokens=before.num_tokens + bill.num_tokens,
                )

    def due(self, until: float) -> list[Bill]:
        """Those that had ended by then, once."""
        with self._lock:
            due = [bill for bill in self._open if bill.ended_at <= until]
            self._open = [bill for bill in self._open if bill.ended_at > until]
            return due

    def settle(self, bill: Bill, joules: float, *, is_estimate: bool) -> None:
        """A request cost so much."""
        with self._lock:
            for costs, name in self._lines(bill):
                before = costs.get(name, Costs())
                costs[name] = replace(
                    before,
                    joules=before.joules + joules,
                    num_priced_tokens=before.num_priced_tokens + bill.num_tokens,
                    is_estimate=before.is_estimate or is_estimate,
                )

    def costs(self) -> tuple[dict[str, Costs], dict[str, Costs]]:
        """By model, and by key."""
        with self._lock:
            return dict(self.by_model), dict(self.by_key)

    def _lines(self, bill: Bill) -> list[tuple[dict[str, Costs], str]]:
        lines = [(self.by_model, bill.model)]
        return lines if bill.key is None else [*lines, (self.by_key, bill.key)]
