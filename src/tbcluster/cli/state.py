"""The folder of this node's keys, as commands use it."""

import os

from tbcluster.cluster.trust import TrustFolder
from tbcluster.errors import TrustError


def own_folder() -> TrustFolder:
    """The folder in which this command keeps what it makes.

    Raises:
        TrustError: The command runs by sudo: what it made would be root's, and of no use to the
            agent, which runs as the user.
    """
    by_sudo = os.geteuid() == 0 and os.environ.get("SUDO_UID", "0") != "0"
    if by_sudo and not os.environ.get("TBCLUSTER_HOME"):
        user = os.environ.get("SUDO_USER", "the user")
        raise TrustError(
            f"run this without sudo: a node's keys have to belong to {user}, and not to root. "
            "Where root shall have them, say in which folder with TBCLUSTER_HOME"
        )
    return TrustFolder()
