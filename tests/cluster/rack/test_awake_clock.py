"""Time in which nobody listened does not count."""

from tbcluster.cluster.rack.awake_clock import MAX_TURN_S, AwakeClock


def test_time_between_two_turns_counts_for_so_much_only() -> None:
    times = iter([50.0, 50.25, 50.25 + MAX_TURN_S, 5000.0, 5000.5])
    clock = AwakeClock(lambda: next(times))
    turned = [clock.turn() for _ in range(4)]
    assert turned == [0.25, 0.25 + MAX_TURN_S, 0.25 + 2 * MAX_TURN_S, 0.75 + 2 * MAX_TURN_S]
    assert clock.now == turned[-1]
