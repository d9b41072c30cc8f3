"""/energy, and what answers say of their own."""

from typing import Any

from fastapi import APIRouter

from tbcluster.cluster.energy.ledger import Costs
from tbcluster.cluster.energy.node_count import ESTIMATE
from tbcluster.cluster.energy.watch import EnergyWatch
from tbcluster.server.deltas import Usage

# Joules of a token, and watts, to a millionth: what no meter tells apart.
DIGITS = 6


def make_router(watch: EnergyWatch) -> APIRouter:
    """The endpoint."""
    router = APIRouter(tags=["Status"])

    @router.get("/energy")
    async def energy() -> dict[str, Any]:
        """What serving has cost since the server started, in joules, by node, model and key; what
        nobody knows is null. `source` is a meter's name, or "estimate"."""
        return energy_body(watch)

    return router


def energy_body(watch: EnergyWatch) -> dict[str, Any]:
    """All that is known."""
    nodes = watch.book.nodes()
    models, keys = watch.ledger.costs()
    watts = [node.watts for node in nodes.values() if node.watts is not None]
    return {
        "since": int(watch.started_at),
        "watts": _rounded(sum(watts)) if watts else None,
        "is_estimate": any(node.source == ESTIMATE for node in nodes.values()),
        "joules_per_token": _rounded(watch.joules_per_token()),
        "nodes": {
            name: {
                "watts": _rounded(node.watts),
                "joules": _rounded(node.joules),
                "source": node.source,
            }
            for name, node in nodes.items()
        },
        "models": {name: _costs(one) for name, one in models.items()},
        "keys": {name: _costs(one) for name, one in keys.items()},
    }


def usage_energy(usage: Usage) -> dict[str, Any]:
    """The field `energy` of an answer's token counts; nothing where nobody knows."""
    energy = usage.energy
    if energy is None or not usage.num_generated:
        return {}
    return {
        "energy": {
            "joules": _rounded(energy.joules),
            "joules_per_token": _rounded(energy.joules / usage.num_generated),
            "source": energy.source,
        }
    }


def _costs(costs: Costs) -> dict[str, Any]:
    is_known = costs.num_priced_tokens > 0
    return {
        "requests": costs.num_requests,
        "tokens": costs.num_tokens,
        "joules": _rounded(costs.joules) if is_known else None,
        "joules_per_token": _rounded(costs.joules_per_token),
        "is_estimate": costs.is_estimate,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
