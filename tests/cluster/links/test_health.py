"""When a path counts as dead, and when it is back."""

from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.links.health import (
    DEAD_AFTER_S,
    FIRST_ANSWER_S,
    NUM_ANSWERS_TO_LIVE,
    PING_DEAD_EVERY_S,
    PING_EVERY_S,
    RECONNECT_EVERY_S,
    PathHealth,
)

TICK_S = 0.25


def dead_path(now: float = 0.0) -> PathHealth:
    """A path that died at `now`."""
    health = PathHealth(now - 3)
    health.pinged(now - DEAD_AFTER_S - 0.01)
    health.pass_time(now)
    assert not health.is_alive
    return health


def test_a_path_begins_alive_and_is_pinged_at_once() -> None:
    health = PathHealth(100)
    assert health.is_alive
    assert health.wants_ping(100)
    health.pinged(100)
    assert not health.wants_ping(100 + PING_EVERY_S * 0.9)
    assert health.wants_ping(100 + PING_EVERY_S)


def test_silence_after_a_ping_kills_it() -> None:
    health = PathHealth(0)
    health.pinged(0)
    health.pinged(1)
    health.pass_time(DEAD_AFTER_S)
    assert health.is_alive
    health.pass_time(DEAD_AFTER_S + 0.01)
    assert not health.is_alive


def test_answers_keep_it_alive() -> None:
    health = PathHealth(0)
    for second in range(60):
        health.pinged(second)
        health.answered(second + 0.9)
        health.pass_time(second + 0.99)
        assert health.is_alive


def test_a_process_that_was_held_up_does_not_blame_its_paths() -> None:
    health = PathHealth(0)
    health.pinged(0)
    health.answered(0.1)
    health.pass_time(500)
    assert health.is_alive


def test_three_answers_apart_bring_it_back() -> None:
    health = dead_path()
    for number in range(1, NUM_ANSWERS_TO_LIVE + 1):
        assert not health.is_alive
        health.pinged(number * PING_DEAD_EVERY_S)
        health.answered(number * PING_DEAD_EVERY_S + 0.1)
    assert health.is_alive


def test_answers_that_waited_in_a_queue_count_as_one() -> None:
    health = dead_path()
    for _ in range(20):
        health.answered(1.0)
    assert not health.is_alive


def test_answers_with_a_silence_between_them_do_not_add_up() -> None:
    health = dead_path()
    now = 0.0
    for _ in range(10):
        for _ in range(NUM_ANSWERS_TO_LIVE - 1):
            now += PING_DEAD_EVERY_S
            health.pinged(now)
            health.answered(now)
            assert not health.is_alive
        health.pinged(now)
        now += DEAD_AFTER_S + 0.1
        health.pass_time(now)


def test_a_dead_path_gets_new_connections_until_it_answers() -> None:
    health = dead_path()
    assert health.wants_connection(0)
    health.connected(0)
    assert health.wants_ping(0)
    assert not health.wants_connection(RECONNECT_EVERY_S * 0.9)
    assert health.wants_connection(RECONNECT_EVERY_S)
    health.answered(RECONNECT_EVERY_S)
    assert not health.wants_connection(RECONNECT_EVERY_S * 3)


def test_an_alive_path_keeps_a_connection_that_has_answered() -> None:
    health = PathHealth(0)
    health.pinged(0)
    health.answered(0.1)
    assert not health.wants_connection(1000)


def test_a_connection_that_never_answered_is_tried_anew_before_its_path_counts_as_dead() -> None:
    health = PathHealth(0)
    health.pinged(0)
    assert not health.wants_connection(FIRST_ANSWER_S * 0.9)
    assert health.wants_connection(FIRST_ANSWER_S)
    health.connected(FIRST_ANSWER_S)
    assert health.wants_ping(FIRST_ANSWER_S)
    assert not health.wants_connection(FIRST_ANSWER_S * 1.5)
    assert FIRST_ANSWER_S * 2 < DEAD_AFTER_S
    health.pass_time(DEAD_AFTER_S + 0.1)
    assert not health.is_alive


@given(st.lists(st.integers(1, 40), min_size=2, max_size=12))
def test_it_follows_the_cable(num_ticks: list[int]) -> None:
    """Driven as a performer does, a cable that goes in and out after so many ticks each; what it
    has been for 5 s is known."""
    health, now = PathHealth(0.0), 0.0
    is_plugged, is_waiting = True, False
    for ticks in num_ticks:
        for tick in range(ticks):
            now += TICK_S
            if is_waiting and is_plugged:
                health.answered(now)
                is_waiting = False
            health.pass_time(now)
            if health.wants_connection(now):
                health.connected(now)
                is_waiting = False
            if health.wants_ping(now):
                health.pinged(now)
                is_waiting = True
            if tick * TICK_S >= 5:
                assert health.is_alive == is_plugged
        is_plugged = not is_plugged
