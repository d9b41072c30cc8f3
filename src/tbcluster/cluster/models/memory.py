"""What a model that is loaded takes of each node's memory, and how that is said."""

from collections.abc import Mapping

from tbcluster.cluster.cluster import Cluster


def taken_bytes(cluster: Cluster) -> dict[str, int]:
    """What the plan of a running cluster takes, by node. KV caches count in full, as large as they
    may become: what was given away is not there for another model."""
    plan = cluster.plan
    if plan is None:
        return {}
    stages = [stage for replica in plan.replicas for stage in replica.stages]
    budgets = cluster.statistics().kv_budget_bytes
    taken: dict[str, int] = {}
    for stage, budget in zip(stages, budgets, strict=True):
        size = stage.used_bytes + max(0, budget - stage.kv_bytes)
        taken[stage.node] = taken.get(stage.node, 0) + size
    return taken


def in_words(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:,.2f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def sizes_in_words(taken: Mapping[str, Mapping[str, int]]) -> str:
    """Models and what each takes over all nodes."""
    return ", ".join(f"{name} ({in_words(sum(of.values()))})" for name, of in taken.items())
