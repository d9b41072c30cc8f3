"""What a person asks of a plan, with or without a plan file. Pure, but for names of folders."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tbcluster.cluster.layout import Layout
from tbcluster.cluster.plan_file import SavedPlan
from tbcluster.errors import PlanError
from tbcluster.planner.plan import DEFAULT_STREAMS, Wishes


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A model, and how it is to be placed.

    Attributes:
        model: A folder, a Hugging Face id, or None for the bundled model.
        kv_bits: 8 or 4 for quantized KV caches; None for the model's own type.
        by_hand: Who runs what, where a person says so.
        bits: Plan as if its weights had so many; None for what they have.
    """

    model: str | None
    wishes: Wishes
    kv_bits: int | None = None
    by_hand: Layout = ()
    bits: int | None = None


def plan_request(
    model: str | None,
    saved: SavedPlan | None = None,
    *,
    context: int | None = None,
    streams: int | None = None,
    kv_bits: int | None = None,
    kv_memory_bytes: int | None = None,
    stages: int | None = None,
    replicas: int | None = None,
    bits: int | None = None,
) -> PlanRequest:
    """What these options ask for; of what a file says, too, they decide.

    Raises:
        PlanError: The file is for another model, or decides what an option does.
    """
    if saved is None:
        wishes = Wishes(
            context=context,
            streams=streams or DEFAULT_STREAMS,
            stages=stages,
            replicas=replicas,
            kv_memory_bytes=kv_memory_bytes,
            kv_bits=kv_bits,
        )
        return PlanRequest(model, wishes, kv_bits, bits=bits)
    _check_absent({"--stages": stages, "--replicas": replicas})
    if model is not None and lasting_name(model) != saved.model:
        raise PlanError(
            f"the plan is for {saved.model or 'the bundled model'}, and {model} was asked for: "
            "leave MODEL out, or make a plan for it"
        )
    kv_bits = kv_bits if kv_bits is not None else saved.kv_bits
    wishes = Wishes(
        context=context or saved.context,
        streams=streams or saved.streams,
        kv_memory_bytes=kv_memory_bytes,
        kv_bits=kv_bits,
        plan_file=saved.file,
    )
    return PlanRequest(saved.model, wishes, kv_bits, saved.placement, bits)


def lasting_name(model: str | None) -> str | None:
    """What names the model from wherever it is read: an absolute path, an id as it is."""
    if model is None:
        return None
    path = Path(model)
    try:
        path = path.expanduser()
        return str(path.resolve()) if path.exists() else model
    except (OSError, RuntimeError):  # too long for a path; no such user
        return model


def _check_absent(options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise PlanError(
            f"the plan file says how many stages and replicas there are: leave out "
            f"{' and '.join(given)}, or --plan"
        )
