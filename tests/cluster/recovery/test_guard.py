"""When stages are examined, and what is made of it."""

from tbcluster.cluster.recovery.guard import AGAIN_S, EVERY_S, Guard
from tbcluster.core import SampledToken
from tbcluster.engine.examination import Examination, Suspects
from tbcluster.errors import StageLostError, TbclusterError
from tests.doubles.epochs import PROMPTS, Bench

RIGHT = Examination((b"1", b"2"), SampledToken(7, -0.5, ((7, -0.5), (8, -3.0))))
WRONG = RIGHT._replace(digests=(b"1", b"3"))


def learned() -> tuple[Guard, Bench]:
    guard, bench = new_guard(), Bench()
    for _ in range(2):
        guard.examine(bench.engine)
        assert guard.judge(RIGHT, 2, 0.0) is None
    return guard, bench


def new_guard() -> Guard:
    posted: list[Examination | TbclusterError] = []
    return Guard(PROMPTS[2], 0.1, posted.append)


def test_what_differs_from_the_first_ones_is_found() -> None:
    guard, bench = learned()
    assert guard.due_in(1.0) == EVERY_S - 1.0
    guard.examine(bench.engine)
    assert guard.judge(WRONG, 2, EVERY_S) == Suspects(1, 1)
    assert (guard.num_checks, guard.num_failures) == (1, 1)
    # What was read again is learned anew.
    assert guard.due_in(EVERY_S) == 0


def test_an_examination_that_a_loss_interrupts_is_made_again() -> None:
    guard, bench = learned()
    guard.examine(bench.engine)
    assert guard.due_in(5.0) == float("inf")
    assert guard.judge(StageLostError("gone"), 2, 5.0) is None
    assert guard.due_in(5.0) == AGAIN_S
    guard.examine(bench.engine)
    # Its news come while the stages are brought back.
    guard.missed(9.0)
    assert guard.due_in(9.0) == AGAIN_S
    assert guard.num_checks == 0
