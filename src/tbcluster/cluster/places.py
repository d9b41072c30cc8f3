"""Where stages run, and how their messages reach each other: the interface, and this machine."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from tbcluster.cluster.supervisor import Worker
from tbcluster.transport.curve import Guard
from tbcluster.wire.control import CurveKeys, Report, Route, Routes, StageSpec

# The coordinator's place among the stages, as a source or a target of messages.
COORDINATOR = -1

# sockaddr_un holds 104 bytes on macOS.
MAX_SOCKET_PATH = 100
SOCKET_NAME_LENGTH = len("/tbcluster-12345678/0123456789abcdef-00")

OnReport = Callable[[Report], None]
OnExit = Callable[[str], None]


class WorkerHandle(Protocol):
    """A stage worker, wherever it runs."""

    @property
    def pid(self) -> int:
        """Its process on its machine; 0 as long as that is not known."""
        ...

    def route(self, routes: Routes) -> None:
        """Tell it where its messages go from now on."""
        ...

    def ask_to_stop(self) -> None:
        """Let it end at once, whatever it is computing."""
        ...

    def free(self) -> None:
        """To this plan it ends. Its weights are kept where they can be, for a stage of the same
        shard that is launched soon."""
        ...

    def join(self) -> None:
        """Wait until it has ended; one on another machine is waited for no longer than it takes to
        tell it."""
        ...


class Places(Protocol):
    """Where the stages of one model run."""

    @property
    def keys(self) -> CurveKeys | None:
        """The coordinator's own, for connections that leave the machine."""
        ...

    @property
    def results(self) -> str:
        """Endpoint for the coordinator to bind; the last stage sends there."""
        ...

    @property
    def results_guard(self) -> Guard | None:
        """Who may connect to `results`; None where only this machine can."""
        ...

    def name(self, stage: int) -> str | None:
        """The node of a stage; None where there is but one machine."""
        ...

    def launch(self, spec: StageSpec, on_report: OnReport, on_exit: OnExit) -> WorkerHandle:
        """Start the worker of a stage as soon as its machine is there. The spec lacks what depends
        on the place: `inbound`, `run_dir`, `senders`.

        Args:
            on_exit: Called once with how it ended, in words.

        Raises:
            StageError, RackError: It cannot be started.
        """
        ...

    def route(self, source: int, target: int, port: int) -> Route:
        """The best way that is open now from one stage (or COORDINATOR) to another.

        Args:
            port: What the target has bound.

        Raises:
            NoPathError: There is none.
        """
        ...

    def is_open(self, source: int, target: int, route: Route) -> bool:
        """Whether a way that `route` gave still is."""
        ...

    def follow(self, on_change: Callable[[], None]) -> None:
        """Have `on_change` called, in another thread, whenever ways open or close."""
        ...

    def close(self) -> None:
        """Call nobody any more, and remove what was made for the sockets."""
        ...


class LocalWorker(Worker):
    """A stage worker of this process."""

    def free(self) -> None:
        """Let it end: nobody else could give it another place."""
        self.ask_to_stop()


class LocalPlaces:
    """All stages on this machine, over sockets in a private folder."""

    keys = None
    results_guard = None

    def __init__(self) -> None:
        self._run_dir = make_run_dir()

    @property
    def results(self) -> str:
        return self._endpoint(COORDINATOR)

    def name(self, stage: int) -> None:
        return None

    def launch(self, spec: StageSpec, on_report: OnReport, on_exit: OnExit) -> LocalWorker:
        placed = msgspec.structs.replace(
            spec, inbound=self._endpoint(spec.index), run_dir=str(self._run_dir)
        )
        return LocalWorker("tbcluster.stage", placed, on_report, on_exit)

    def route(self, source: int, target: int, port: int) -> Route:
        return Route(self._endpoint(target))

    def is_open(self, source: int, target: int, route: Route) -> bool:
        return True

    def follow(self, on_change: Callable[[], None]) -> None:
        pass

    def close(self) -> None:
        shutil.rmtree(self._run_dir, ignore_errors=True)

    def _endpoint(self, target: int) -> str:
        name = "results" if target == COORDINATOR else f"stage-{target}"
        return f"ipc://{self._run_dir}/{name}"


def make_run_dir() -> Path:
    """A new folder, readable by this user alone, whose path is short enough for sockets."""
    parent = tempfile.gettempdir()
    if len(parent) + SOCKET_NAME_LENGTH > MAX_SOCKET_PATH:
        parent = "/tmp"  # noqa: S108 - mkdtemp makes an unguessable folder with mode 0700
    return Path(tempfile.mkdtemp(prefix="tbcluster-", dir=parent))
