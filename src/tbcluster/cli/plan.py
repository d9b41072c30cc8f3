"""`tbcluster plan`: who would run which layers, in which memory, how fast, and why."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tbcluster.cli.loading import console, say
from tbcluster.cli.options import (
    Bits,
    Context,
    KvBits,
    KvMemory,
    Memory,
    Model,
    PlanPath,
    Replicas,
    Stages,
    Streams,
)
from tbcluster.cli.plan_view import show_plan, tensor_parallel_lines
from tbcluster.cli.progress import busy
from tbcluster.cli.rack import only_errors, output, plain
from tbcluster.cli.state import own_folder
from tbcluster.cluster.plan_file import read_plan, save_plan
from tbcluster.cluster.plan_request import PlanRequest, lasting_name, plan_request
from tbcluster.cluster.rack_file import read_rack_file
from tbcluster.errors import DoesNotFitError, PlanError
from tbcluster.planner.tensor_parallel import tensor_parallel_groups

if TYPE_CHECKING:
    # MLX takes its time to import, which commands that need it not should not wait for.
    from tbcluster.cluster.planning import PlannedModel


def plan(
    model: Model = None,
    context: Context = None,
    streams: Streams = None,
    bits: Bits = None,
    kv_bits: KvBits = None,
    kv_memory: KvMemory = None,
    stages: Stages = None,
    replicas: Replicas = None,
    rack: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Plan for the rack that this file describes, which need not be there (see "
            "configs/).",
            show_default=False,
        ),
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Plan for this machine alone.")] = False,
    memory: Memory = None,
    plan: PlanPath = None,
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the plan to this file, for `tbcluster serve --plan FILE`.",
            show_default=False,
        ),
    ] = None,
    tensor_parallel: Annotated[
        bool,
        typer.Option(
            "--tensor-parallel",
            help="Say also what equal nodes would do that share each layer, as other runtimes can.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which node would run which layers of a model, how fast that is, and why.

    Loads nothing: of a Hugging Face id only the headers of its weight files are fetched. A
    config.json is enough, and so is the name alone of many a known model, such as DeepSeek-R1.
    """
    if rack is not None and (local or memory is not None):
        raise typer.BadParameter(
            "it says which machines there are: leave out --local and --memory",
            param_hint="--rack",
        )
    request = plan_request(
        model,
        read_plan(plan) if plan is not None else None,
        context=context,
        streams=streams,
        kv_bits=kv_bits,
        kv_memory_bytes=kv_memory,
        stages=stages,
        replicas=replicas,
        bits=bits,
    )
    try:
        planned = planned_model(request, rack, local=local, memory_bytes=memory)
    except DoesNotFitError as error:
        if as_json:
            typer.echo(json.dumps(refusal(error), indent=2))
            raise typer.Exit(1) from error
        raise
    if save is not None:
        _check_servable(save, planned)
        save_plan(save, planned.plan, lasting_name(request.model), request.kv_bits)
    if as_json:
        typer.echo(json.dumps(facts(planned), indent=2))
        return
    for note in planned.notes:
        say(note)
    show_plan(output(), planned.plan, planned.profile, planned.rack)
    if tensor_parallel:
        for line in tensor_parallel_lines(planned.profile, planned.rack, planned.plan.context):
            output().print(plain(line), soft_wrap=True)
    if save is not None:
        say(f"written to {save}: `tbcluster serve --plan {save}` uses it")


def planned_model(
    request: PlanRequest, rack: Path | None, *, local: bool, memory_bytes: int | None = None
) -> "PlannedModel":
    """The plan for the rack that was named, for the one whose head this machine is, or for this
    machine where it belongs to none.

    Raises:
        TbclusterError: The model, the rack or the plan cannot be used.
    """
    from tbcluster.cluster.planning import plan_alone, plan_described, plan_on_rack

    described = read_rack_file(rack) if rack is not None else None
    with busy("planning", console) as now, only_errors():
        if described is not None:
            return plan_described(request, described)
        folder = own_folder()
        if local or folder.membership() is None:
            return plan_alone(request, memory_bytes, on_doing=now)
        return plan_on_rack(request, folder, memory_bytes)


def _check_servable(save: Path, planned: "PlannedModel") -> None:
    if planned.opened.unservable_because:
        raise PlanError(
            f"--save {save}: a saved plan is for `tbcluster serve`, and "
            f"{planned.opened.unservable_because}"
        )


def facts(planned: "PlannedModel") -> dict[str, Any]:
    """All of it, as programs read it."""
    profile, rack = planned.profile, planned.rack
    return {
        "plan": asdict(planned.plan),
        "model": {**asdict(profile), "weight_bytes": profile.weight_bytes},
        "tensor_parallel": {
            preset: {
                "tokens_per_s": group.tokens_per_s(planned.plan.context // 2),
                "prompt_tokens_per_s": group.prompt_tokens_per_s(planned.plan.context),
            }
            for preset, group in tensor_parallel_groups(profile, rack).items()
        },
        "rack": {
            "nodes": [asdict(node) for node in rack.nodes],
            "links": [
                {"source": source, "target": target, **asdict(link)}
                for (source, target), link in rack.links.items()
            ],
        },
    }


def refusal(error: DoesNotFitError) -> dict[str, Any]:
    """What is missing, as programs read it."""
    return {
        "error": str(error),
        "missing_bytes": error.missing_bytes,
        "remedies": list(error.remedies),
    }
