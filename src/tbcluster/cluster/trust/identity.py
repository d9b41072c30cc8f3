"""Who a node is, who the cluster is, and what one knows of the other."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

import msgspec

from tbcluster.wire.control import CurveKeys

# Agents dial the coordinator here; machines that want to join, one port above.
CONTROL_PORT = 29640
MAX_CONTROL_PORT = 65534

# A CURVE key in Z85, as ZeroMQ spells it.
KEY_PATTERN = r"\A[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z"
Key = Annotated[str, msgspec.Meta(pattern=KEY_PATTERN)]
Port = Annotated[int, msgspec.Meta(ge=1, le=MAX_CONTROL_PORT)]


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """A node's own keys, and the id that follows from the public one."""

    node_id: str
    keys: CurveKeys


@dataclass(frozen=True, slots=True)
class HeadIdentity:
    """The cluster's own keys, which the head node alone has."""

    cluster_id: str
    cluster_name: str
    keys: CurveKeys
    control_port: int


@dataclass(frozen=True, slots=True)
class Membership:
    """What a node knows of the cluster that it belongs to.

    Attributes:
        coordinator_key: The cluster's public key: whoever has the secret one is the coordinator.
        addresses: Where the coordinator was reached, with ports: "192.0.2.1:29640" or
            "[fe80::1%en3]:29640".
    """

    cluster_id: str
    cluster_name: str
    node_name: str
    coordinator_key: str
    addresses: tuple[str, ...]
    control_port: int


def id_of(public_key: str) -> str:
    """The id of the node or cluster that has this key: 16 hexadecimal digits."""
    return sha256(public_key.encode("ascii")).hexdigest()[:16]
