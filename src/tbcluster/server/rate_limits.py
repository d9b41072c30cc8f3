"""How much each key may ask for per minute. Pure: the clock is given."""

from collections.abc import Callable
from dataclasses import dataclass

MINUTE_S = 60.0


class Bucket:
    """Holds what may be used up now, at most a minute's worth; it fills evenly with time."""

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._filled_at = now

    def level(self, now: float) -> float:
        """What is left; below zero when more was taken than there was."""
        passed = max(0.0, now - self._filled_at)
        self._level = min(self.per_minute, self._level + passed * self.per_minute / MINUTE_S)
        self._filled_at = now
        return self._level

    def take(self, amount: float, now: float) -> None:
        """Use some up."""
        self._level = self.level(now) - amount

    def wait_s(self, level: float, now: float) -> float:
        """Seconds until it has filled up to `level`; 0 if it has."""
        missing = level - self.level(now)
        return max(0.0, missing * MINUTE_S / self.per_minute)


@dataclass(frozen=True, slots=True)
class Excess:
    """Why a request has to wait, and for how long.

    Attributes:
        unit: "requests" or "tokens".
    """

    unit: str
    per_minute: int
    wait_s: float


class Allowance:
    """What one key may still use.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: Prompt and answer together; None for no limit.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        clock: Callable[[], float],
    ) -> None:
        self.limits = (requests_per_minute, tokens_per_minute)
        self._clock = clock
        now = clock()
        self._requests = None if requests_per_minute is None else Bucket(requests_per_minute, now)
        self._tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute, now)

    def admit(self) -> Excess | None:
        """Let one more request in and return None, or say what is in its way."""
        now = self._clock()
        # How long a request's answer will be is not known: it is charged when it is over, and the
        # next one waits for what was too much.
        if self._tokens is not None and (wait_s := self._tokens.wait_s(0, now)) > 0:
            return Excess("tokens", self._tokens.per_minute, wait_s)
        if self._requests is not None:
            if (wait_s := self._requests.wait_s(1, now)) > 0:
                return Excess("requests", self._requests.per_minute, wait_s)
            self._requests.take(1, now)
        return None

    def charge(self, num_tokens: int) -> None:
        """Count the tokens of a request that was let in."""
        if self._tokens is not None:
            self._tokens.take(num_tokens, self._clock())

    def headers(self) -> dict[str, str]:
        """What is left, in the headers that OpenAI's clients know."""
        now = self._clock()
        named = (("requests", self._requests), ("tokens", self._tokens))
        return {
            f"x-ratelimit-{name}-{unit}": value
            for unit, bucket in named
            if bucket is not None
            for name, value in _facts(bucket, now)
        }


def _facts(bucket: Bucket, now: float) -> list[tuple[str, str]]:
    return [
        ("limit", str(bucket.per_minute)),
        ("remaining", str(max(0, int(bucket.level(now))))),
        ("reset", f"{bucket.wait_s(bucket.per_minute, now):.3f}s"),
    ]
