"""`tbcluster drain` and `undrain`: a node is taken out, and back."""

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from tbcluster.cli.loading import console
from tbcluster.cli.nodes import members
from tbcluster.cli.rack import find_node, plain
from tbcluster.cli.state import own_folder
from tbcluster.cluster.rack.ask import ask_running, why_not_drained
from tbcluster.cluster.trust import TrustFolder
from tbcluster.errors import RackError
from tbcluster.machine import NodeState, NodeView, RackView

LOOK_S = 0.5

Name = Annotated[str, typer.Argument(help="The node's name or id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the node as JSON.")]


def drain(
    name: Name,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Even if what is served does not fit on the others: it then waits."
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait until nothing runs there.")
    ] = 900.0,
    as_json: AsJson = False,
) -> None:
    """Take a node out, to be switched off or upgraded: its layers move to others.

    Answers that are being written pause meanwhile, and lose nothing.
    """
    folder, file = own_folder(), members()
    node = file.drainable(name)
    if not force and not node.is_drained:
        _check_others_suffice(node.name)
    file.drain(node.node_id)
    rack = _await_idle(folder, node.node_id, time.monotonic() + timeout)
    is_served = rack is not None and rack.serving is not None
    now = "runs nothing now" if is_served else "is drained, and nothing is served"
    off = "it still coordinates" if node.is_head else "it may be switched off"
    back = f"`tbcluster undrain {node.name}` takes it back"
    _tell(rack, node.node_id, f"{node.name} {now}: {off}. {back}.", as_json)


def undrain(name: Name, as_json: AsJson = False) -> None:
    """Take a node back that was drained."""
    folder, file = own_folder(), members()
    node = file.drainable(name)
    file.undrain(node.node_id)
    rack = ask_running(folder) if as_json else None
    again = "takes part again, in the next plan" if node.is_drained else "was not drained"
    _tell(rack, node.node_id, f"{node.name} {again}.", as_json)


def _check_others_suffice(name: str) -> None:
    """Raises: RackError when what is served would not fit on the others."""
    why = why_not_drained(own_folder(), name)
    if why is not None:
        raise RackError(
            f"{why}. Nothing was changed; with --force {name} is drained all the same, and what "
            "does not fit is not served until there is room"
        )


def _await_idle(folder: TrustFolder, node_id: str, give_up: float) -> RackView | None:
    """The rack once no stage runs on this node; None where no coordinator runs.

    Raises:
        RackError: One still runs at the time to give up.
    """
    said = ""
    while (rack := ask_running(folder)) is not None:
        node = find_node(rack, node_id)
        if node.is_drained and not node.stages:
            break
        runs = f"{node.name} runs {', '.join(node.stages) or 'nothing'}; {rack.serving_state}"
        if time.monotonic() > give_up:
            raise RackError(f"{runs}. It is drained; `tbcluster drain {node.name}` waits for more")
        if runs != said:
            console.print(plain(runs), soft_wrap=True)
            said = runs
        time.sleep(LOOK_S)
    return rack


def _tell(rack: RackView | None, node_id: str, line: str, as_json: bool) -> None:
    console.print(plain(line), soft_wrap=True)
    if as_json:
        node = find_node(rack, node_id) if rack is not None else _listed(node_id)
        typer.echo(json.dumps(asdict(node), indent=2))


def _listed(node_id: str) -> NodeView:
    """What the list of nodes says of one, where no coordinator knows more."""
    member = members().drainable(node_id)
    offline, is_drained = NodeState.OFFLINE, member.is_drained
    return NodeView(node_id, member.name, offline, member.is_head, is_drained=is_drained)
