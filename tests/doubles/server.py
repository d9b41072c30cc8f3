"""`tbcluster serve` as a user runs it: a process of its own, spoken to over HTTP."""

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Self

import psutil

from tests.doubles.waiting import join, wait_until

_ADDRESS = re.compile(r"http://(?:\[[^\]]+\]|[\w.]+):\d+")


class ServeProcess:
    """A running server; leaving the block ends it with Ctrl-C's signal."""

    command: tuple[str, ...] = ("tbcluster", "serve", "--port", "0")

    def __init__(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *self.command, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What the server has printed for people."""
        return "".join(self.lines)

    @property
    def url(self) -> str:
        """The address it printed, without /v1."""
        found = _ADDRESS.search(self.output)
        assert found, self.output
        return found.group()

    @property
    def address(self) -> str | None:
        """Where it listens on loopback, which it prints only when it can answer; None before that,
        and in the end."""
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(self.process.pid).net_connections("tcp4"):
                if one.status == psutil.CONN_LISTEN and one.laddr.ip == "127.0.0.1":
                    return f"http://127.0.0.1:{one.laddr.port}"
        return None

    def __enter__(self) -> Self:
        wait_until(
            lambda: "Ctrl-C ends it" in self.output or self.process.poll() is not None,
            "the server is up",
        )
        assert self.process.poll() is None, self.output
        return self

    def __exit__(self, *_: object) -> None:
        self.interrupt()

    def interrupt(self) -> int:
        """Press Ctrl-C, once more where requests are being finished, and return the exit status."""
        self.press_ctrl_c()
        wait_until(
            lambda: self.process.poll() is not None or "Ctrl-C again" in self.output,
            "the server has ended or says what it waits for",
        )
        self.press_ctrl_c()
        status = self.process.wait(timeout=30)
        join(self._reader, "nothing that the server has started holds its output open")
        return status

    def press_ctrl_c(self) -> None:
        """Send what Ctrl-C sends, to the whole foreground group as a terminal does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
