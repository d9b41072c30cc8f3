"""`tbcluster init`: make a cluster."""

import json
from typing import Annotated

import typer

from tbcluster.cli.invite import lifetime
from tbcluster.cli.loading import console
from tbcluster.cli.state import own_folder
from tbcluster.cluster.trust import CONTROL_PORT, MemberFile, invite_node
from tbcluster.cluster.trust.identity import MAX_CONTROL_PORT
from tbcluster.cluster.trust.invitation import DEFAULT_VALID_S
from tbcluster.cluster.trust.names import host_name


def init(
    name: Annotated[str, typer.Option(help="What the cluster is called.")] = "rack",
    node_name: Annotated[
        str | None,
        typer.Option(help="What this node is called.", show_default="its host name"),
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            min=1,
            max=MAX_CONTROL_PORT,
            help="Agents connect to this port here, and machines that join to the next one.",
        ),
    ] = CONTROL_PORT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a cluster, with this machine as its head node, and a token for the next machine."""
    folder = own_folder()
    head = folder.init(name, node_name or host_name(), port)
    members = MemberFile(folder)
    token = invite_node(head, members)
    (node,) = members.nodes()
    if as_json:
        made = {
            "cluster_id": head.cluster_id,
            "cluster_name": head.cluster_name,
            "node_id": node.node_id,
            "node_name": node.name,
            "control_port": head.control_port,
            "folder": str(folder.path),
            "token": token.encode(),
            "expires": token.expires,
        }
        typer.echo(json.dumps(made, indent=2))
        return
    console.print(
        f"This machine is {node.name}, the head node of cluster {head.cluster_name} "
        f"({head.cluster_id}). Its keys are in {folder.path}.\n\n"
        f"On one other machine, within {lifetime(DEFAULT_VALID_S)}, type `tbcluster join` and "
        "this token, which is a secret until it is used:\n",
        soft_wrap=True,
        markup=False,
    )
    typer.echo(token.encode())
    console.print(
        "\nFor each further machine, `tbcluster invite` makes a token.\n"
        "Here, `tbcluster serve MODEL` admits them and serves a model on all of them; "
        "`tbcluster invite --wait` only admits them.",
        soft_wrap=True,
        markup=False,
    )
