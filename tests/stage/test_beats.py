"""What a worker says of the step in hand, with a clock that the test moves."""

from tbcluster.stage.beats import Work
from tbcluster.wire.control import Beat


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_step_is_in_hand_from_its_arrival_until_it_is_finished() -> None:
    clock = Clock()
    work = Work(clock)
    assert work.beat() == Beat(0, 0.0)
    work.takes()
    clock.now += 2
    assert work.beat() == Beat(0, 2.0)
    work.turns(finished=False, follows=True)
    clock.now += 1
    assert work.beat() == Beat(0, 3.0)
    work.turns(finished=True, follows=False)
    clock.now += 5
    assert work.beat() == Beat(1, 0.0)


def test_the_time_of_a_step_begins_when_the_one_before_it_is_done() -> None:
    clock = Clock()
    work = Work(clock)
    work.takes()
    work.turns(finished=False, follows=True)
    clock.now += 4
    work.takes()
    assert work.beat() == Beat(0, 4.0)
    work.turns(finished=True, follows=True)
    clock.now += 1
    assert work.beat() == Beat(1, 1.0)


def test_a_step_that_is_dropped_is_not_in_hand() -> None:
    clock = Clock()
    work = Work(clock)
    work.takes()
    work.turns(finished=False, follows=False)
    clock.now += 9
    assert work.beat() == Beat(0, 0.0)
