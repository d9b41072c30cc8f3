"""Workers that live and do no good: stopped for a moment, wedged for good, with decayed weights."""

from pathlib import Path

import pytest

from tests.chaos.scene import LAST, MIDDLE, Scene
from tests.chaos.streams import await_tokens, submitted
from tests.doubles.faults.memory import flip_bits, needs_process_memory
from tests.doubles.faults.signals import wedge, wedged
from tests.doubles.processes import is_alive
from tests.doubles.waiting import wait_until

ENOUGH = 5
NUM_VALUES = 16


def test_a_worker_that_stops_for_a_moment_is_left_alone(stage: Scene) -> None:
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    pid = stage.pid(MIDDLE)
    with wedged(pid):
        wait_until(stage.is_still(streams), "nothing comes any more")
    stage.check(streams)
    assert stage.pid(MIDDLE) == pid


def test_a_worker_that_is_wedged_is_replaced(stage: Scene) -> None:
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    pid = stage.pid(LAST)
    wedge(pid)
    stage.check(streams)
    assert not is_alive(pid)
    assert "did not answer" in stage.cluster.recovery_records[-1].why


@needs_process_memory
def test_weights_whose_bits_flip_are_found_and_read_again(
    stage: Scene, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def num_checks() -> int:
        return stage.cluster.status().recoveries.num_parity_checks

    before = num_checks()

    def is_checked() -> bool:
        # The first two are what later ones are compared with.
        stage.cluster.examine()
        return num_checks() > before

    wait_until(is_checked, "the stages have been examined")
    kept, victim = [stage.pid(0), stage.pid(LAST)], stage.cluster.status().stages[MIDDLE]
    tensor = f"model.layers.{victim.layers.start}.mlp.down_proj.weight"
    flip_bits(victim.pid, model, tensor, NUM_VALUES)
    stage.cluster.examine()
    wait_until(lambda: stage.pid(MIDDLE) not in (0, victim.pid), "the stage is loaded again")
    stage.check(submitted(stage.cluster))
    assert f"stage {MIDDLE} computes something else" in caplog.text
    assert [stage.pid(0), stage.pid(LAST)] == kept
