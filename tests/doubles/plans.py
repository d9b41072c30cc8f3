"""Plans as a planner would make them, of round numbers."""

from dataclasses import replace

from tbcluster.core import StageRange
from tbcluster.planner.nodes import NodeSpeed, PlanLink, PlanNode, PlanRack, SpeedSource
from tbcluster.planner.plan import LeftOut, Plan, PlannedReplica, PlannedStage
from tbcluster.planner.profile import ModelProfile, PartProfile

GIB = 2**30
SPEED = NodeSpeed(((1, 4e-12), (2048, 1e-9)), layer_s=2e-4, stage_s=1e-4, cache_s_per_byte=4e-12)


def stage(node: str, start: int, end: int) -> PlannedStage:
    """A stage that takes 42 of 48 GiB."""
    return PlannedStage(
        node=node,
        layers=StageRange(start, end),
        weight_bytes=35 * GIB,
        kv_bytes=4 * GIB,
        activation_bytes=GIB,
        reserve_bytes=2 * GIB,
        memory_bytes=48 * GIB,
        decode_s=0.0213,
        prefill_s=1.234,
        hop_s=0.00031,
    )


def replica(*stages: PlannedStage) -> PlannedReplica:
    """One of two streams."""
    return PlannedReplica(
        stages=stages,
        slowest_s=0.0213,
        step_s=0.05,
        longest_context=131072,
        streams=2,
        tokens_per_s=41.26,
        stream_tokens_per_s=20.4,
        prefill_tokens_per_s=1234.5,
    )


ONE = Plan(
    model="Qwen3-32B",
    replicas=(replica(stage("mini1", 0, 16), stage("mini2", 16, 32)),),
    left_out=(LeftOut("old-mini", "it would only slow the others down"),),
    context=8192,
    streams=2,
    reasons=("memory decides: [no node] holds all layers",),
)
TWO = replace(
    ONE,
    replicas=(*ONE.replicas, replica(stage("mini3", 0, 20), stage("mini4", 20, 32))),
    streams=4,
)
LAYER = PartProfile(weight_bytes=GIB, flops=2 * GIB)
PROFILE = ModelProfile(
    name="Qwen3-32B",
    architecture="qwen3",
    layers=(LAYER,) * 32,
    embedding=LAYER,
    head=LAYER,
    shared=PartProfile(0, 0),
    hidden_bytes=10240,
    legal_cuts=tuple(range(1, 32)),
    context_length=131072,
    num_visits=1,
    vocab_size=151936,
    weight_kind="4-bit/64",
    file_bytes=34 * GIB,
    num_parameters=671 * 10**9,
    active_parameters=37 * 10**9,
)
RACK = PlanRack(
    nodes=(
        PlanNode("mini1", 48 * GIB, SPEED, is_head=True),
        PlanNode("mini2", 48 * GIB, replace(SPEED, source=SpeedSource.CATALOGUE)),
    ),
    links={("mini1", "mini2"): PlanLink(1e-4, 5e9, "thunderbolt5")},
)
