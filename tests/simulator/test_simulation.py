"""Plans under a workload on a virtual clock."""

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.errors import PlanError, SimulationError
from tbcluster.planner.nodes import NodePower, PlanRack
from tbcluster.planner.plan import Plan, Wishes
from tbcluster.planner.planning import make_plan
from tbcluster.planner.profile import ModelProfile
from tbcluster.simulator.failures import DETECTION_S, Failure
from tbcluster.simulator.planned import simulate_planned
from tbcluster.simulator.results import SimulationResult
from tbcluster.simulator.simulation import Scenario, simulate
from tbcluster.simulator.workload import Lengths, Workload, closed_loop, open_loop
from tests.planner.racks import model, models, node, rack, racks

FIXED = Lengths(64, 64), Lengths(100, 100)


def planned(
    profile: ModelProfile, on: PlanRack, streams: int = 1, **wishes: int
) -> tuple[ModelProfile, PlanRack, Plan]:
    return profile, on, make_plan(profile, on, Wishes(context=1024, streams=streams, **wishes))


def chain(num_nodes: int, **changes: object) -> PlanRack:
    nodes = [node(f"n{at}", 8000, is_head=at == 0) for at in range(num_nodes)]
    on = rack(*nodes)
    return replace(on, nodes=tuple(replace(one, **changes) for one in on.nodes))  # type: ignore[arg-type]


def run(
    profile: ModelProfile, on: PlanRack, plan: Plan, workload: Workload, **options: object
) -> SimulationResult:
    return simulate(Scenario(profile, on, plan, workload, **options))  # type: ignore[arg-type]


class PlannedDouble(NamedTuple):
    """What `simulate_planned` looks at of a `PlannedModel`."""

    profile: ModelProfile
    rack: PlanRack
    plan: Plan
    at_once: float = 1.0


def at_the_end(result: SimulationResult) -> set[str]:
    """Nodes that ran stages when the last request ended."""
    last = max(stage.ended_s for stage in result.stages)
    return {stage.node for stage in result.stages if stage.ended_s == last}


@pytest.mark.parametrize("num_stages", [1, 2, 4])
def test_one_stream_is_as_fast_as_planned(num_stages: int) -> None:
    profile, on, plan = planned(model(8), chain(num_stages), stages=num_stages)
    result = run(profile, on, plan, closed_loop(1, 3, *FIXED))
    expected = plan.replicas[0].stream_tokens_per_s
    # The plan counts with half of its promised context, the requests have less.
    assert result.stream_tokens_per_s == pytest.approx(expected, rel=0.06)
    assert result.num_tokens == 300
    assert result.num_prompt_tokens == 192


def test_many_streams_fill_the_pipeline_as_planned() -> None:
    profile, on, plan = planned(model(8), chain(4), streams=16, stages=4)
    answers = Lengths(2, 2), Lengths(400, 400)
    result = run(profile, on, plan, closed_loop(16, 32, *answers))
    assert result.tokens_per_s == pytest.approx(plan.replicas[0].tokens_per_s, rel=0.1)
    assert min(stage.idle_share for stage in result.stages) < 0.05
    assert max(stage.idle_share for stage in result.stages) < 0.3


def test_one_stream_leaves_all_stages_but_one_idle() -> None:
    profile, on, plan = planned(model(8), chain(4), stages=4)
    result = run(profile, on, plan, closed_loop(1, 2, *FIXED))
    assert sum(1 - stage.idle_share for stage in result.stages) == pytest.approx(1, abs=0.15)


def test_equal_seeds_give_equal_results() -> None:
    given_ = planned(model(6), chain(3), streams=4, stages=3)
    drawn = open_loop(0.5, 40, Lengths(8, 300), Lengths(5, 60), seed=3)
    assert run(*given_, drawn) == run(*given_, drawn)
    other = open_loop(0.5, 40, Lengths(8, 300), Lengths(5, 60), seed=4)
    assert run(*given_, drawn) != run(*given_, other)


def test_a_stage_is_lost_and_the_rest_goes_on() -> None:
    profile, on, plan = planned(model(6), chain(3), streams=4, stages=3)
    drawn = closed_loop(4, 12, *FIXED)
    whole = run(profile, on, plan, drawn)
    lost = run(profile, on, plan, drawn, failures=(Failure("n1", whole.seconds / 2),))
    assert lost.num_tokens == whole.num_tokens
    assert lost.num_refused == 0
    assert at_the_end(lost) == {"n0", "n2"}
    assert {stage.node for stage in lost.stages} == {"n0", "n1", "n2"}
    assert lost.seconds > whole.seconds + DETECTION_S
    assert lost.gap is not None
    assert lost.gap.most_s > DETECTION_S
    assert any("n1 is lost" in line for line in lost.happenings)
    back = (Failure("n1", whole.seconds / 4, whole.seconds / 2),)
    again = run(profile, on, plan, drawn, failures=back)
    assert at_the_end(again) == {"n0", "n1", "n2"}
    assert again.num_tokens == whole.num_tokens


def test_a_second_loss_while_stages_load_is_mended_as_well() -> None:
    profile, on, plan = planned(model(6), chain(4), streams=4, stages=4)
    drawn = closed_loop(4, 24, *FIXED)
    losses = (Failure("n1", 5.0), Failure("n2", 5.0 + DETECTION_S + 0.2))
    result = run(profile, on, plan, drawn, failures=losses)
    assert result.num_tokens == 2400
    assert at_the_end(result) <= {"n0", "n3"}


def test_no_node_is_given_to_two_replicas() -> None:
    profile, on, plan = planned(model(6), chain(8), streams=8, replicas=2, stages=3)
    first, second = ({stage.node for stage in replica.stages} for replica in plan.replicas)
    losses = (Failure(min(first - {"n0"}), 5.0), Failure(min(second - {"n0"}), 5.0))
    drawn = closed_loop(8, 48, *FIXED)
    result = run(profile, on, plan, drawn, failures=losses)
    assert result.num_unanswered == 0
    last = max(stage.ended_s for stage in result.stages)
    at_last = [(stage.replica, stage.node) for stage in result.stages if stage.ended_s == last]
    nodes = [node for _, node in set(at_last)]
    assert len(nodes) == len(set(nodes))


def test_a_node_that_is_back_before_it_counts_as_lost() -> None:
    profile, on, plan = planned(model(6), chain(3), streams=4, stages=3)
    drawn = closed_loop(4, 12, *FIXED)
    result = run(profile, on, plan, drawn, failures=(Failure("n1", 5.0, 6.0),))
    assert result.num_tokens == 1200
    assert at_the_end(result) == {"n0", "n1", "n2"}
    assert len([line for line in result.happenings if "answers again" in line]) == 1


def test_plans_after_a_loss_are_as_wished() -> None:
    profile, on, plan = planned(model(8), chain(5), streams=2, stages=2)
    lost = plan.replicas[0].stages[1].node
    scenario = Scenario(
        profile,
        on,
        plan,
        closed_loop(2, 8, *FIXED),
        wishes=Wishes(context=1024, streams=2, stages=2),
        failures=(Failure(lost, 5.0),),
    )
    result = simulate(scenario)
    assert len(at_the_end(result)) == 2
    assert lost not in at_the_end(result)


def test_waiting_requests_go_to_the_replica_that_is_up() -> None:
    profile, on, plan = planned(model(6), chain(2), streams=8, replicas=2)
    drawn = closed_loop(8, 32, *FIXED)
    result = run(profile, on, plan, drawn, failures=(Failure("n1", 5.0),))
    assert result.num_unanswered == 0
    assert result.num_tokens == 3200


def test_a_looped_model_pays_its_way_back() -> None:
    """From the last stage to the first one, as the plan says."""
    near = planned(model(6, num_visits=2), chain(3), stages=3)
    profile, on, plan = near
    result = run(*near, closed_loop(1, 2, *FIXED))
    assert result.stream_tokens_per_s == pytest.approx(
        plan.replicas[0].stream_tokens_per_s, rel=0.06
    )
    slow = rack(*on.nodes, latency_s=0.05)
    far = run(profile, slow, plan, closed_loop(1, 2, *FIXED))
    assert far.gap is not None
    assert result.gap is not None
    # Two hops twice, and one back; to the coordinator it is none, and one from the last stage.
    assert far.gap.p50_s - result.gap.p50_s == pytest.approx(6 * (0.05 - 1e-4), rel=0.05)


def test_what_nobody_can_lose_is_refused() -> None:
    profile, on, plan = planned(model(6), chain(2))
    given = PlannedDouble(profile, on, plan)
    for node_name, words in (("n0", "head node"), ("n9", "the rack has n0 and n1")):
        with pytest.raises(SimulationError, match=words):
            simulate_planned(
                given,  # type: ignore[arg-type]
                closed_loop(1, 1, *FIXED),
                name="rack",
                failures=(Failure(node_name, 1.0),),
            )


def test_what_no_node_is_left_for_waits_until_one_is_back() -> None:
    profile, on, plan = planned(model(6), chain(1))
    drawn = closed_loop(1, 2, *FIXED)
    forever = run(profile, on, plan, drawn, failures=(Failure("n0", 1.0),), most_s=1000.0)
    assert forever.num_tokens < 200
    assert forever.num_unanswered == 2
    assert forever.tokens_per_s < 0.2, "the outage counts"
    back = run(profile, on, plan, drawn, failures=(Failure("n0", 1.0, 50.0),))
    assert back.num_tokens == 200


def test_requests_go_to_the_replica_with_less_to_do() -> None:
    profile, on, plan = planned(model(6), chain(4), streams=8, replicas=2)
    assert len(plan.replicas) == 2
    result = run(profile, on, plan, closed_loop(8, 32, *FIXED))
    shares = [1 - stage.idle_share for stage in result.stages]
    assert min(shares) > 0.7 * max(shares)
    alone = planned(model(6), chain(2), streams=4, replicas=1)
    half = run(*alone, closed_loop(4, 16, *FIXED))
    assert result.tokens_per_s == pytest.approx(2 * half.tokens_per_s, rel=0.15)


def test_a_known_beginning_is_not_computed_again() -> None:
    given_ = planned(model(6), chain(1), streams=4)
    long_ = Lengths(700, 700), Lengths(10, 10)
    apart = run(*given_, closed_loop(1, 6, *long_))
    shared = run(*given_, closed_loop(1, 6, *long_, shared=640))
    assert apart.first_token is not None
    assert shared.first_token is not None
    assert shared.first_token.p50_s < 0.5 * apart.first_token.p50_s


def test_energy_is_what_the_machines_draw() -> None:
    power = NodePower(idle_w=10, decode_w=100, prompt_w=200)
    profile, on, plan = planned(model(6), chain(1, power=power, price_usd=1000.0))
    busy = run(profile, on, plan, closed_loop(1, 2, Lengths(2, 2), Lengths(200, 200)))
    assert busy.watts == pytest.approx(100, rel=0.05)
    assert busy.joules_per_token == pytest.approx(busy.watts / busy.tokens_per_s)  # type: ignore[operator]
    idle = run(profile, on, plan, open_loop(0.01, 3, Lengths(2, 2), Lengths(10, 10)))
    assert idle.watts == pytest.approx(10, rel=0.5)
    assert busy.price_usd == 1000
    assert run(profile, chain(1), plan, closed_loop(1, 2, *FIXED)).watts is None


def test_a_request_that_never_fits_is_refused_and_told() -> None:
    profile, on, plan = planned(model(6), chain(1))
    result = run(profile, on, plan, closed_loop(1, 2, Lengths(40_000, 40_000), Lengths(5, 5)))
    assert result.num_refused == 2
    assert result.refusals


def test_short_memory_makes_answers_give_way() -> None:
    small = PlanRack((node("n0", 190, is_head=True),), {})
    profile, on, plan = planned(model(6), small, streams=2)
    result = run(profile, on, plan, closed_loop(24, 24, Lengths(100, 100), Lengths(600, 600)))
    assert result.num_refused == 0
    assert result.num_tokens == 24 * 600
    assert all(stage.kv_peak_bytes <= stage.kv_budget_bytes for stage in result.stages)


@settings(max_examples=30, deadline=None)
@given(models(), racks(), st.integers(1, 5), st.integers(0, 3))
def test_every_token_comes_whatever_the_model_and_rack(
    profile: ModelProfile, on: PlanRack, clients: int, seed: int
) -> None:
    try:
        plan = make_plan(profile, on, Wishes(context=256, streams=clients))
    except PlanError:
        return
    drawn = closed_loop(clients, 2 * clients, Lengths(1, 100), Lengths(1, 20), seed=seed)
    result = run(profile, on, plan, drawn)
    assert result.num_tokens == sum(one.num_output for one in drawn.requests)
    assert all(0 <= stage.idle_share <= 1 for stage in result.stages)
    assert all(stage.decode_share + stage.prompt_share <= 1 + 1e-6 for stage in result.stages)
