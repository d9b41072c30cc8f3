"""What a key may use per minute, on a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from tbcluster.server.rate_limits import Allowance


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_requests_run_out_and_come_back() -> None:
    clock = Clock()
    allowance = Allowance(3, None, clock)
    assert [allowance.admit() for _ in range(3)] == [None, None, None]
    excess = allowance.admit()
    assert excess is not None
    assert (excess.unit, excess.per_minute, excess.wait_s) == ("requests", 3, 20.0)
    clock.now += 19.9
    assert allowance.admit() is not None
    clock.now += 0.2
    assert allowance.admit() is None
    assert allowance.admit() is not None


def test_tokens_are_charged_afterwards() -> None:
    clock = Clock()
    allowance = Allowance(None, 600, clock)
    assert allowance.admit() is None
    allowance.charge(700)
    excess = allowance.admit()
    assert excess is not None
    assert (excess.unit, excess.wait_s) == ("tokens", 10.0)
    clock.now += 10
    assert allowance.admit() is None
    clock.now += 3600
    assert allowance.headers()["x-ratelimit-remaining-tokens"] == "600"


def test_headers_say_what_is_left() -> None:
    clock = Clock()
    allowance = Allowance(60, 1000, clock)
    allowance.admit()
    allowance.charge(250)
    assert allowance.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1.000s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "750",
        "x-ratelimit-reset-tokens": "15.000s",
    }
    assert Allowance(None, None, clock).headers() == {}


@given(
    per_minute=st.integers(1, 1000),
    waits=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=100),
)
def test_never_more_than_the_bucket_and_what_flowed_in(per_minute: int, waits: list[float]) -> None:
    clock = Clock()
    allowance = Allowance(per_minute, None, clock)
    admitted = 0
    for wait in waits:
        clock.now += wait
        excess = allowance.admit()
        admitted += excess is None
        if excess is not None:
            # Whoever waits as told is let in.
            clock.now += excess.wait_s + 1e-6
            assert allowance.admit() is None
            admitted += 1
    assert admitted <= per_minute + (clock.now - 100.0) * per_minute / 60 + 1e-3


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 100)), max_size=50))
def test_debt_is_always_paid_off(charges: list[tuple[int, float]]) -> None:
    clock = Clock()
    allowance = Allowance(None, 100, clock)
    for num_tokens, wait in charges:
        allowance.charge(num_tokens)
        clock.now += wait
    excess = allowance.admit()
    if excess is not None:
        clock.now += excess.wait_s + 1e-6
        assert allowance.admit() is None
