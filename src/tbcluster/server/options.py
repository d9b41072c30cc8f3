"""How the server is set up."""

from dataclasses import dataclass

from tbcluster.server.keys import KeyRing

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Who may ask, how much, and how long the server is patient with them.

    Attributes:
        keys: Asked for with every request; None lets everyone in.
        is_local: Whether only this machine can connect: without keys, requests must then be
            addressed to it by a name of its own, so that a web page cannot reach the model.
        cors_origins: Web pages that may use the server, such as "https://chat.example"; "*" is all.
        max_body_bytes: Longest body of a request.
        header_timeout_s: How long a request's head may take.
        body_timeout_s: How long the rest of a body may stay away.
        refused_body_s: A body that is refused is still read, and thrown away, for so long: a client
            that is busy sending would not see the answer.
        idle_timeout_s: How long a connection is kept for its next request.
        write_timeout_s: A reader that takes nothing of its answer for so long is cut.
        load_wait_s: How long a request waits for its model to be loaded.
        drain_s: How long running requests may take to finish once the server is to end.
        logs_access: Whether a line is logged for each request.
    """

    keys: KeyRing | None = None
    is_local: bool = True
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 32 * MIB
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    refused_body_s: float = 5.0
    idle_timeout_s: float = 75.0
    write_timeout_s: float = 60.0
    load_wait_s: float = 300.0
    drain_s: float = 30.0
    logs_access: bool = False
