"""One machine for faults: a server that is started again whenever it ends, and its workers."""

import os
import shutil
import socket
import sys
import tempfile
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from tests.doubles.faults.clients import Asked, RunningStream, eight
from tests.doubles.rack import GRACE_S, Service
from tests.doubles.waiting import wait_until

RECOVERY_S = 60.0


class FaultServer:
    """`tbcluster serve` on this machine alone, with folders of its own; where no network namespaces
    can be made.

    Args:
        model: A folder.
        options: Of `serve`.
    """

    def __init__(self, model: Path, *options: str) -> None:
        self.model = model
        self._folder = Path(tempfile.mkdtemp(prefix="chaos-", dir="/tmp"))
        (self._folder / "tmp").mkdir()
        self._port = _free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._options = ("--port", str(self._port), *options)
        self._http = httpx.Client(base_url=self.url, timeout=5.0)
        self._coordinator: Service | None = None

    def serve(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "tbcluster", "serve", str(self.model), *self._options]
        home = {"TBCLUSTER_HOME": str(self._folder / "home"), "TMPDIR": str(self._folder / "tmp")}
        self._coordinator = Service(command, {**os.environ, **home, "PYTHONUNBUFFERED": "1"})
        self.await_well()

    @property
    def coordinator(self) -> Service:
        """`serve`, as a service."""
        assert self._coordinator is not None
        return self._coordinator

    @property
    def run_folders(self) -> list[Path]:
        """Where its sockets are."""
        return [self._folder / "tmp"]

    def eight(self, num_tokens: int) -> list[Asked]:
        """See `clients.eight`."""
        return eight(self.model.name, num_tokens)

    def inside(self) -> nullcontext[None]:
        """Where clients run: here."""
        return nullcontext()

    def submit(self, asked: Asked) -> RunningStream:
        """Ask for it."""
        return RunningStream(self.url, asked, self.inside())

    def health(self) -> dict[str, Any] | None:
        """What the server says of itself; None while it does not answer."""
        with suppress(httpx.HTTPError, ValueError):
            facts: dict[str, Any] = self._http.get("/health").json()
            return facts if "stages" in facts else None
        return None

    def await_well(self, deadline_s: float = RECOVERY_S) -> None:
        """Wait until all stages are up."""
        wait_until(lambda: is_well(self.health()), "the server is well", deadline_s)

    def processes(self) -> list[psutil.Process]:
        """The server and its workers."""
        with suppress(psutil.NoSuchProcess):
            server = self.coordinator.process
            return [server, *server.children(recursive=True)]
        return []

    def said(self) -> str:
        """What it has printed."""
        return self.coordinator.output

    def close(self) -> None:
        """End it."""
        try:
            if self._coordinator is not None:
                before = self.processes()
                self._coordinator.stop()
                wait_until(lambda: not any(map(_is_left, before)), "all has ended", GRACE_S)
        finally:
            self._http.close()
            shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_well(health: dict[str, Any] | None) -> bool:
    """Whether a server answers, with all stages up."""
    return (
        health is not None
        and health["status"] == "ok"
        and bool(health["stages"])
        and all(stage["state"] == "ready" for stage in health["stages"])
    )


def _is_left(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
