"""Which shards a new plan leaves where they are."""

from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.kept_shards import MAX_LOSS, Stages, keep_shards, kept_bytes
from tbcluster.core import StageRange
from tbcluster.errors import DoesNotFitError
from tbcluster.planner.plan import Plan, PlannedReplica, PlannedStage


def planned(*stages: tuple[str, int, int], tokens_per_s: float = 100.0) -> Plan:
    """One replica: (node, first layer, end) each; a layer has a byte."""
    made = tuple(
        PlannedStage(node, StageRange(start, end), end - start, 0, 0, 0, 100, 0.01, 0.1, 0.0)
        for node, start, end in stages
    )
    replica = PlannedReplica(made, 0.01, 0.02, 1024, 4, tokens_per_s, 50.0, 1000.0)
    return Plan("m", (replica,), (), 1024, 4, ("why",))


def places(plan: Plan) -> list[tuple[str, int, int]]:
    return [(s.node, s.layers.start, s.layers.end) for s in plan.replicas[0].stages]


class Layouts:
    """Plans any layout, at a speed that the test gives; what is not given does not fit."""

    def __init__(self, **tokens_per_s: float) -> None:
        self._tokens_per_s = tokens_per_s

    def __call__(self, stages: Stages) -> Plan:
        nodes = "".join(node for node, _ in stages)
        if nodes not in self._tokens_per_s:
            raise DoesNotFitError("no", 1, ())
        rows = [(node, layers.start, layers.end) for node, layers in stages]
        return planned(*rows, tokens_per_s=self._tokens_per_s[nodes])


BEFORE = planned(("a", 0, 4), ("b", 4, 8)).replicas[0]


def test_a_spare_node_takes_the_place_of_a_lost_one() -> None:
    best = planned(("c", 0, 4), ("a", 4, 8))
    kept = keep_shards(best, BEFORE, ["a", "c"], Layouts(ac=95.0))
    assert places(kept) == [("a", 0, 4), ("c", 4, 8)]
    assert kept.reasons[0] == "what is loaded stays where it is"
    assert not kept.is_by_hand


def test_ranges_go_back_where_they_were() -> None:
    before = planned(("a", 0, 3), ("b", 3, 6), ("c", 6, 8)).replicas[0]
    best = planned(("b", 0, 3), ("a", 3, 8))
    kept = keep_shards(best, before, ["a", "b"], Layouts(ab=100.0))
    assert places(kept) == [("a", 0, 3), ("b", 3, 8)]


def test_a_much_slower_plan_is_not_worth_it() -> None:
    best = planned(("c", 0, 4), ("a", 4, 8))
    assert keep_shards(best, BEFORE, ["a", "c"], Layouts(ac=80.0)) is best


def test_what_does_not_fit_is_no_way() -> None:
    best = planned(("c", 0, 4), ("a", 4, 8))
    assert keep_shards(best, BEFORE, ["a", "c"], Layouts()) is best


def test_of_several_spare_nodes_the_first_that_keeps_most_is_taken() -> None:
    best = planned(("a", 0, 2), ("c", 2, 8))
    kept = keep_shards(best, BEFORE, ["a", "c", "d"], Layouts(ad=100.0))
    assert places(kept) == [("a", 0, 4), ("d", 4, 8)]


@st.composite
def replicas(draw: st.DrawFn) -> Plan:
    nodes = draw(st.permutations("abcd"))[: draw(st.integers(1, 4))]
    cuts = sorted(
        draw(st.sets(st.integers(1, 7), min_size=len(nodes) - 1, max_size=len(nodes) - 1))
    )
    bounds = [0, *cuts, 8]
    rows = [(node, bounds[i], bounds[i + 1]) for i, node in enumerate(nodes)]
    return planned(*rows, tokens_per_s=draw(st.sampled_from([50.0, 95.0, 100.0])))


@given(replicas(), replicas(), st.data())
def test_it_never_keeps_less_and_is_never_much_slower(
    best: Plan, before: Plan, data: st.DataObject
) -> None:
    nodes = [stage.node for stage in best.replicas[0].stages]
    nodes += [node for node in "abcd" if node not in nodes and data.draw(st.booleans())]

    def try_layout(stages: Stages) -> Plan:
        assert {node for node, _ in stages} <= set(nodes)
        assert len({node for node, _ in stages}) == len(stages)
        assert [layers.end for _, layers in stages][-1] == 8
        rows = [(node, layers.start, layers.end) for node, layers in stages]
        return planned(*rows, tokens_per_s=data.draw(st.sampled_from([50.0, 95.0, 100.0])))

    kept = keep_shards(best, before.replicas[0], nodes, try_layout)
    old = before.replicas[0]
    assert kept_bytes(kept.replicas[0], old) >= kept_bytes(best.replicas[0], old)
    assert kept.replicas[0].tokens_per_s >= MAX_LOSS * best.replicas[0].tokens_per_s
