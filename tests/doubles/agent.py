"""`tbcluster agent` as a process of its own."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from tbcluster.cluster.trust import Membership, TrustFolder, id_of
from tbcluster.transport.curve import new_keys
from tests.doubles.waiting import join, wait_until

CLUSTER_KEYS = new_keys()


def joined_folder(path: Path, *addresses: str, port: int = 29640) -> TrustFolder:
    """The state of a node that has joined the cluster of `CLUSTER_KEYS`."""
    folder = TrustFolder(path)
    key = CLUSTER_KEYS.public
    folder.join(Membership(id_of(key), "rack", "mini2", key, addresses, port))
    return folder


class AgentProcess:
    """A running agent; leaving the block ends it with SIGTERM."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tbcluster", "agent", *arguments],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TBCLUSTER_HOME": str(folder)},
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """Its log."""
        return "".join(self._lines)

    def await_line(self, text: str) -> None:
        """Wait until the log holds this."""
        wait_until(lambda: text in self.output, f"the log says {text!r}: {self.output}")

    def wait(self) -> int:
        """Its exit status, once it has ended by itself."""
        status = self.process.wait(timeout=30)
        join(self._reader, "nothing that the agent has started holds its log open")
        return status

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal, and wait."""
        self.process.send_signal(number)
        return self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.end()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)
