"""How the server is set up."""

from dataclasses import dataclass
from math import inf

from tbcluster.cluster.streams import Patience
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
        max_unread: A reader for whom so many tokens wait is told that it is too slow, and its
            request ends.
        keep_alive_s: A stream says that it goes on after so many seconds without a byte.
        first_wait_s: A stream begins without its first token when that takes longer.
        queue_timeout_s: How long a request may be without its first token; infinity for ever.
        request_timeout_s: How long it may take until its last one.
        load_wait_s: How long a request waits for its model to be loaded.
        drain_s: How long running requests may take to finish once the server is to end.
        logs_access: Whether a line is logged for each request.
        logs_text: Whether structured lines hold prompts and answers.
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
    max_unread: int = 4096
    keep_alive_s: float = 5.0
    first_wait_s: float = 10.0
    # As long as OpenAI's and Anthropic's clients wait for an answer.
    queue_timeout_s: float = 600.0
    request_timeout_s: float = inf
    load_wait_s: float = 300.0
    drain_s: float = 30.0
    logs_access: bool = False
    logs_text: bool = False

    @property
    def patience(self) -> Patience:
        """How long requests may take."""
        return Patience(self.queue_timeout_s, self.request_timeout_s)
