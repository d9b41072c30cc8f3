"""Where the soak takes place: a rack of namespaces, or one machine where there can be none."""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil

from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.faults.clients import Asked
from tests.doubles.faults.rack import FaultRack
from tests.doubles.faults.server import FaultServer
from tests.doubles.namespaces import Network, can_make_namespaces
from tests.doubles.rack import Service

# Some milliseconds a step, so that answers last; a context that none of them reaches.
SIZES = LlamaSizes(
    num_hidden_layers=12,
    hidden_size=256,
    intermediate_size=512,
    max_position_embeddings=10**9,
)
# One node is spare, so that there is somewhere to go when another one is cut off.
SERVE = ("--stages", "2", "--context", "4096", "--streams", "8")


class Ground(Protocol):
    """What serves, and what can be seen of it."""

    url: str

    @property
    def coordinator(self) -> Service:
        """`serve`, which is started again whenever it ends."""
        ...

    @property
    def run_folders(self) -> list[Path]:
        """Where sockets are made."""
        ...

    def serve(self) -> None:
        """Start it, and wait until it answers."""
        ...

    def eight(self, num_tokens: int) -> list[Asked]:
        """The requests."""
        ...

    def inside(self) -> AbstractContextManager[None]:
        """Where clients run."""
        ...

    def health(self) -> dict[str, Any] | None:
        """What the server says of itself; None while it does not answer."""
        ...

    def await_well(self, deadline_s: float = ...) -> None:
        """Wait until it answers with all stages up."""
        ...

    def processes(self) -> list[psutil.Process]:
        """All that runs."""
        ...

    def said(self) -> str:
        """What everything has printed."""
        ...


@contextmanager
def chosen_ground() -> Iterator[Ground]:
    """A rack of three nodes, or, without root on Linux, one machine."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        model = write_llama(Path(folder) / "endless", SIZES, with_tokenizer=True)
        if can_make_namespaces():
            with Network() as network, FaultRack(network, model, *SERVE) as rack:
                yield rack
        else:
            print(
                "chaos: one machine and kills alone: a rack takes root on Linux, ip and tc",
                file=sys.stderr,
            )
            with FaultServer(model, *SERVE) as server:
                yield server


def stages_of(ground: Ground) -> list[dict[str, Any]]:
    """`index`, `node`, `pid` and `state` of each stage that has a process; none while the server
    does not answer."""
    health = ground.health()
    return [] if health is None else [stage for stage in health["stages"] if stage["pid"]]


def words(health: dict[str, Any] | None) -> str:
    """What the server is doing, shortly."""
    if health is None:
        return "no answer"
    doing = health.get("doing")
    return str(health["status"]) + (f": {json.dumps(doing)}" if doing else "")
