"""What models did between two looks."""

from dataclasses import replace

from tbcluster.cluster.energy.work import ModelWork, Work, WorkCount
from tbcluster.cluster.opening import THIS_MACHINE
from tbcluster.cluster.stage_status import StageStatus
from tbcluster.core import StageRange
from tbcluster.engine.statistics import EngineStatistics, StageStatistics

EMPTY = EngineStatistics((), 0, 0, 0, 0, 0, 0, 0, 0, 0, (), ())


def statistics(*stages: tuple[int, int], steps: int = 1, tokens: int = 0) -> EngineStatistics:
    told = tuple(StageStatistics(compute, idle) for compute, idle in stages)
    return replace(EMPTY, stages=told, num_steps=steps, num_generated_tokens=tokens)


def stages(*nodes: str | None) -> list[StageStatus]:
    return [StageStatus(i, StageRange(i, i + 1), node=node) for i, node in enumerate(nodes)]


def test_stages_of_a_node_compute_together_and_are_active_at_once() -> None:
    count, placed = WorkCount(), stages("a", "a", "b")
    assert count.since_last("m", placed, statistics((5, 5), (5, 5), (5, 5))) == ModelWork()
    now = statistics((300_005, 200_005), (100_005, 300_005), (5, 5), steps=9, tokens=7)
    assert count.since_last("m", placed, now) == ModelWork(
        {"a": Work(0.4, 0.5), "b": Work(0.0, 0.0)}, 7
    )
    assert count.since_last("m", placed, now).nodes["a"] == Work(0.0, 0.0)


def test_without_a_rack_it_is_this_machine() -> None:
    count, placed = WorkCount(), stages(None)
    count.since_last("m", placed, statistics((0, 0)))
    assert count.since_last("m", placed, statistics((10**6, 0))).nodes == {
        THIS_MACHINE: Work(1.0, 1.0)
    }


def test_counters_that_began_again_tell_nothing_yet() -> None:
    count, placed = WorkCount(), stages("a")
    count.since_last("m", placed, statistics((500, 0), steps=9))
    assert count.since_last("m", placed, statistics((600, 0), steps=2)) == ModelWork()
    assert count.since_last("m", stages("a", "b"), statistics((700, 0), (1, 1))) == ModelWork()


def test_a_model_that_was_away_is_met_anew() -> None:
    count, placed = WorkCount(), stages("a")
    count.since_last("m", placed, statistics((500, 0)))
    count.forget_others(["n"])
    assert count.since_last("m", placed, statistics((900, 0))) == ModelWork()
