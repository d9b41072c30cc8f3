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
        typer.Option(help="What this node is called.", show_default="its host name"),
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
    if force or new_keys or not _is_member(folder, wanted):
        if new_keys:
            folder.renew_node()
        _join(wanted, folder, name or host_name(), timeout)
    if install_service is not None:
        install_service()
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
        f"This machine is {_described(membership)}. Its keys are in {folder.path}.",
        soft_wrap=True,
        markup=False,
    )


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
