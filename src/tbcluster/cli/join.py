"""`tbcluster join`: have this machine admitted to a cluster."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from tbcluster.cli.loading import console
from tbcluster.cli.service import report
from tbcluster.cli.state import own_folder
from tbcluster.cluster import service
from tbcluster.cluster.agent.lock import runs_agent
from tbcluster.cluster.service import ServiceKind
from tbcluster.cluster.trust import JoinToken, Membership, TrustFolder, join_cluster
from tbcluster.cluster.trust.join_token import MAX_CHARACTERS
from tbcluster.cluster.trust.names import host_name
from tbcluster.errors import TrustError


def join(
    token: Annotated[
        str,
        typer.Argument(
            help="What `tbcluster init` or `tbcluster invite` printed on the head node; - reads it "
            "from standard input, which keeps it out of the shell's history."
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="What this node is called.", show_default="the one it has there, or its host name"
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0, help="Wait so many seconds for the head node.")
    ] = 120.0,
    force: Annotated[
        bool, typer.Option("--force", help="Leave the cluster that this machine belongs to.")
    ] = False,
    new_keys: Annotated[
        bool,
        typer.Option(
            "--new-keys", help="Make other keys first, as a revoked node has to; implies --force."
        ),
    ] = False,
    installs: Annotated[
        bool,
        typer.Option(
            "--service", help="Then install the agent as a service, which takes sudo's password."
        ),
    ] = False,
) -> None:
    """Make this machine a node of the cluster that the token is from."""
    if token == "-":  # noqa: S105
        token = sys.stdin.read(2 * MAX_CHARACTERS)
    wanted = JoinToken.decode(token)
    folder = own_folder()
    install_service = _service_installer(folder.path) if installs else None
    has_to_join = force or new_keys or not _is_member(folder, wanted)
    if has_to_join:
        if new_keys:
            folder.renew_node()
        _join(wanted, folder, name or _usual_name(folder, wanted), timeout)
    if install_service is not None:
        install_service()
    elif has_to_join and runs_agent(folder.path):
        console.print(
            "The agent that runs here still has the old keys: end it and start `tbcluster agent` "
            "again, or restart its service.",
            soft_wrap=True,
            markup=False,
        )
    else:
        console.print(
            "Next: `tbcluster agent`, or `tbcluster service install` to have it run from now "
            "on and after every start of the machine.",
            soft_wrap=True,
            markup=False,
        )


def _service_installer(folder: Path) -> Callable[[], None]:
    """Shows the agent's service and installs it; sudo asks for the password.

    Raises:
        ServiceError: There can be no service, which is found here, before the token is used.
    """
    services = service.this_machine(folder)
    services.require_manager()
    agent = services.service(ServiceKind.AGENT)

    def install() -> None:
        typer.echo(services.shown_install(agent))
        report(services.install_through_sudo(agent))

    return install


def _join(token: JoinToken, folder: TrustFolder, name: str, timeout_s: float) -> None:
    membership = join_cluster(
        token,
        folder,
        name,
        deadline_s=timeout_s,
        on_note=lambda note: console.print(note, soft_wrap=True, markup=False),
    )
    console.print(
        f"This machine is {_described(membership)}{_remark(name, membership.node_name)}. Its keys "
        f"are in {folder.path}.",
        soft_wrap=True,
        markup=False,
    )


def _usual_name(folder: TrustFolder, wanted: JoinToken) -> str:
    """What this machine is called in that cluster; its host name where it is new there."""
    known = folder.membership()
    is_known = known is not None and known.cluster_id == wanted.cluster_id
    return known.node_name if known is not None and is_known else host_name()


def _remark(wanted: str, given: str) -> str:
    """Why the node is not called what it asked for."""
    if given == wanted:
        return ""
    stem, _, number = given.rpartition("-")
    is_taken = number.isdigit() and stem != "" and wanted.startswith(stem)
    why = f"{wanted} was taken" if is_taken else "the head node knows it by this name"
    return f" ({why}; `tbcluster nodes rename` on the head node changes it)"


def _is_member(folder: TrustFolder, wanted: JoinToken) -> bool:
    """Whether there is nothing to do.

    Raises:
        TrustError: It belongs to another cluster.
    """
    folder.check_is_no_head()
    known = folder.membership()
    if known is None:
        return False
    if known.cluster_id != wanted.cluster_id:
        raise TrustError(
            f"this machine is {_described(known)}, and the token is of another cluster "
            f"({wanted.cluster_id}): `tbcluster join TOKEN --force` leaves the one for the other"
        )
    console.print(
        f"This machine is {_described(known)} already, and the token was not used. If it was "
        "revoked there, `tbcluster join TOKEN --new-keys` makes it a new node.",
        soft_wrap=True,
        markup=False,
    )
    return True


def _described(membership: Membership) -> str:
    return (
        f"{membership.node_name}, a node of cluster {membership.cluster_name} "
        f"({membership.cluster_id})"
    )
