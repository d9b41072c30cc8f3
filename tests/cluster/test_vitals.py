"""How a worker's end is told: numbers where it was loading, lack of memory where that is likely."""

import pytest

from tbcluster.cluster.vitals import Vitals
from tbcluster.core import StageRange
from tbcluster.wire.control import Beat, Failed, Loading, Ready, StageSpec

GIB = 1 << 30
SPEC = StageSpec(0, 1, "", StageRange(0, 1), 1, "", "")


class Machine:
    """Its free memory."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self) -> int:
        return self.left


def test_a_kill_while_loading_is_told_with_numbers() -> None:
    vitals = Vitals(SPEC, memory_left=Machine(8 * GIB))
    vitals.heard(Loading(3 * GIB, 5 * GIB))
    told = "was killed by signal 9 while loading 3 GiB of 5 GiB, with 8 GiB of memory left on the "
    assert vitals.describe(-9) == told + "machine"
    assert vitals.failure(-9) is None


@pytest.mark.parametrize("sign", [Beat(0), Loading(3 * GIB, 5 * GIB)])
def test_where_memory_ran_out_before_the_kill_that_is_told_as_the_cause(
    sign: Beat | Loading,
) -> None:
    machine = Machine(9 * GIB)
    vitals = Vitals(SPEC, memory_left=machine)
    vitals.heard(Loading(3 * GIB, 5 * GIB))
    machine.left = GIB // 2
    vitals.heard(sign)
    # What it held is free again by the time its end is told.
    machine.left = 9 * GIB
    told = (
        "was killed by signal 9 while loading 3 GiB of 5 GiB, with 512 MiB of memory left on the "
        "machine: probably out of memory"
    )
    assert vitals.describe(-9) == told
    assert vitals.failure(-9) == Failed("StageMemoryError", told)


def test_ends_that_have_nothing_to_do_with_memory() -> None:
    vitals = Vitals(SPEC, memory_left=Machine(0))
    assert vitals.describe(-9) == "was killed by signal 9"
    vitals.heard(Loading(3 * GIB, 5 * GIB))
    assert vitals.describe(1) == "ended with status 1"
    assert vitals.failure(1) is None
    vitals.heard(Ready(1, "CPU"))
    assert vitals.describe(-9) == "was killed by signal 9"
    assert vitals.failure(-9) is None
