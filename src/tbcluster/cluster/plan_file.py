"""Plans as files: written by `tbcluster plan --save`, mended by hand, read by `serve --plan`.

Nodes and layers, context and streams decide. What a file says of speed and memory is there for its
reader alone: it is predicted anew when the plan is used.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tbcluster.core import KV_BITS, StageRange
from tbcluster.errors import PlanError
from tbcluster.planner.plan import Plan, PlannedReplica, PlannedStage

VERSION = 1
# Some thousand stages, with what is predicted of each.
MAX_FILE_BYTES = 4 << 20
_LAYERS = re.compile(r"(?P<first>\d{1,6})(-(?P<last>\d{1,6}))?")

# (node, its layers), for each stage of each replica.
Placement = tuple[tuple[tuple[str, StageRange], ...], ...]


class _Stage(msgspec.Struct, forbid_unknown_fields=True):
    node: str
    layers: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    model: str | None
    context: int
    streams: int
    replicas: list[list[_Stage]]
    kv_bits: int | None = None
    predictions: Any = None


class SavedPlan(msgspec.Struct, frozen=True):
    """What a plan file decides.

    Attributes:
        model: A folder or a Hugging Face id; None for the bundled model.
        kv_bits: 8 or 4 for quantized KV caches; None for the model's own type.
        file: Where it was read from, for errors.
    """

    model: str | None
    context: int
    streams: int
    kv_bits: int | None
    placement: Placement
    file: str = ""


def save_plan(path: Path, plan: Plan, model: str | None, kv_bits: int | None) -> None:
    """Write a plan, in place of what was there.

    Args:
        model: What the user named, so that it is found again; None for the bundled model.

    Raises:
        PlanError: The file cannot be written.
    """
    content = _File(
        version=VERSION,
        model=model,
        context=plan.context,
        streams=plan.streams,
        kv_bits=kv_bits,
        replicas=[
            [_Stage(stage.node, str(stage.layers)) for stage in replica.stages]
            for replica in plan.replicas
        ],
        predictions={
            "note": "for information: predicted anew when the plan is used",
            "replicas": [_predicted(replica) for replica in plan.replicas],
        },
    )
    text = msgspec.json.format(msgspec.json.encode(content), indent=2)
    try:
        path.write_bytes(text + b"\n")
    except OSError as error:
        raise PlanError(f"the plan cannot be written to {path}: {error.strerror}") from error


def read_plan(path: Path) -> SavedPlan:
    """A plan file, checked as far as that can be done without the model and the rack.

    Raises:
        PlanError: It cannot be read, is no plan, or a field says what no plan can; names the file
            and the field.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PlanError(f"the plan {path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise PlanError(f"{path} has more than {MAX_FILE_BYTES:,} bytes: it is no plan")
    try:
        fields = msgspec.json.decode(content, type=dict[str, Any])
        if "version" not in fields:
            raise PlanError(
                f"{path} is no plan: it has no version, as `tbcluster plan --save` writes"
            )
        file_version = fields["version"]
        if file_version != VERSION:
            raise PlanError(
                f"{path}: version is {file_version!r}, and this tbcluster reads {VERSION}: make "
                "the plan anew with `tbcluster plan --save`"
            )
        said = msgspec.json.decode(content, type=_File)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PlanError(f"{path} is no plan: {_fault(str(error))}") from error
    return _checked(path, said)


def _checked(path: Path, said: _File) -> SavedPlan:
    for name, value in (("context", said.context), ("streams", said.streams)):
        if value < 1:
            raise PlanError(f"{path}: {name} is {value}: write 1 or more")
    if said.kv_bits is not None and said.kv_bits not in KV_BITS:
        raise PlanError(f"{path}: kv_bits is {said.kv_bits}: write 8 or 4, or leave it out")
    if not said.replicas or not all(said.replicas):
        raise PlanError(f"{path}: replicas: each has to have a stage, and there has to be one")
    placement = tuple(
        tuple(
            (stage.node, _layers(f"{path}: replicas[{replica}][{place}].layers", stage.layers))
            for place, stage in enumerate(stages)
        )
        for replica, stages in enumerate(said.replicas)
    )
    return SavedPlan(said.model, said.context, said.streams, said.kv_bits, placement, str(path))


def _layers(where: str, text: str) -> StageRange:
    found = _LAYERS.fullmatch(text.strip())
    if found is None:
        raise PlanError(f"{where} is {text!r}: write FIRST-LAST, such as 16-31")
    first, last = int(found["first"]), int(found["last"] or found["first"])
    if last < first:
        raise PlanError(f"{where} is {text!r}: the last layer comes before the first")
    return StageRange(first, last + 1)


def _fault(message: str) -> str:
    """msgspec's words, the field first: "replicas[0][1].node: Expected `str`, got `int`"."""
    said, _, field = message.partition(" - at `$")
    field = field.removesuffix("`").removeprefix(".")
    return f"{field}: {said}" if field else said


def _predicted(replica: PlannedReplica) -> Mapping[str, Any]:
    return {
        "tokens_per_s": _figure(replica.tokens_per_s),
        "stream_tokens_per_s": _figure(replica.stream_tokens_per_s),
        "prefill_tokens_per_s": _figure(replica.prefill_tokens_per_s),
        "longest_context": replica.longest_context,
        "stages": _predicted_stages(replica.stages),
    }


def _predicted_stages(stages: Sequence[PlannedStage]) -> list[Mapping[str, Any]]:
    return [
        {
            "used_bytes": stage.used_bytes,
            "memory_bytes": stage.memory_bytes,
            "decode_ms": _figure(stage.decode_s * 1e3),
            "prefill_ms": _figure(stage.prefill_s * 1e3),
        }
        for stage in stages
    ]


def _figure(value: float) -> float:
    """Three digits: a prediction knows no more."""
    return float(f"{value:.3g}")
