"""An agent for the head node's own stages, where no service runs one.

It ends with this process. Where stage workers are left to the next coordinator, after a crash for
instance, it stays for as long as they do, and that one finds it running.
"""

import logging
import os
import subprocess
import sys
import threading
import time

from tbcluster.cluster.agent.lock import runs_agent
from tbcluster.cluster.trust.folder import TrustFolder

logger = logging.getLogger(__name__)

# An agent that ends at once each time is not started faster than this.
RESTART_S = 1.0
# Where a service ran an agent, it has so long to start it again: launchd takes ten seconds.
GIVE_WAY_S = 15.0
STOP_GRACE_S = 10.0
ARGUMENTS = ("-P", "-m", "tbcluster", "agent", "--follow-parent")


class LocalAgent:
    """Keeps an agent running on this machine.

    Args:
        memory_bytes: The most that models may take here; None for what MLX says.
    """

    def __init__(self, folder: TrustFolder, memory_bytes: int | None = None) -> None:
        self._folder = folder
        self._limits = () if memory_bytes is None else ("--memory", str(memory_bytes))
        self._is_closed = threading.Event()
        # Held while one is started: it is started before `close` or not at all.
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="tbcluster-agent", daemon=True)
        self._thread.start()

    def close(self, *, keeps_workers: bool = False) -> None:
        """End it, if it is ours.

        Args:
            keeps_workers: It stays with what it runs, for another coordinator.
        """
        with self._lock:
            self._is_closed.set()
            process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()
            if keeps_workers:
                return
            self._thread.join(STOP_GRACE_S)
            process.kill()
        self._thread.join()

    def _keep(self) -> None:
        seen_at = float("-inf")
        while not self._is_closed.is_set():
            process = None
            if runs_agent(self._folder.path):
                seen_at = time.monotonic()
            elif time.monotonic() >= seen_at + GIVE_WAY_S:
                process = self._start()
            if process is not None:
                status = process.wait()
                if not self._is_closed.is_set():
                    logger.warning("the agent on this machine ended with status %d", status)
            self._is_closed.wait(RESTART_S)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._is_closed.is_set():
                return None
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *ARGUMENTS, *self._limits],
                    stdin=subprocess.PIPE,
                    env={**os.environ, "TBCLUSTER_HOME": str(self._folder.path)},
                    # A group of its own: a terminal's Ctrl-C goes to the parent, which decides.
                    process_group=0,
                )
            except OSError as error:
                logger.warning("no agent can be started on this machine: %s", error)
                return None
            return self._process
