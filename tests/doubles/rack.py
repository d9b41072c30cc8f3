"""A rack on one machine: every node is a network namespace with a state folder of its own, and runs
`tbcluster` as a user or the system's service manager does."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import psutil

from tbcluster.cluster.trust import HeadIdentity, MemberFile, Membership, TrustFolder
from tests.doubles.namespaces import Network
from tests.doubles.waiting import join, wait_until

TOKEN = re.compile(r"tbj-[\w-]+")
HTTP_PORT = 8080
COMMAND_S = 60.0
# How long a service manager waits before it starts something again; launchd's is ten seconds.
THROTTLE_S = 0.3
GRACE_S = 10.0


class Background:
    """A command that runs on a node, with no terminal; what it prints is collected."""

    def __init__(self, command: Sequence[str], env: dict[str, str], lines: list[str]) -> None:
        self.lines = lines
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return "".join(self.lines)

    def await_output(self, text: str) -> None:
        """Wait until it has printed this."""
        wait_until(
            lambda: text in self.output or self.process.poll() is not None,
            f"{text!r} is printed by {self.process.args}",
        )
        assert text in self.output, f"{self.process.args} printed:\n{self.output}"

    def ask_to_stop(self) -> None:
        """Have it end, as a service manager does."""
        if self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> int:
        """The same, and wait for it; gives its exit status."""
        self.ask_to_stop()
        try:
            return self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.process.args} did not end:\n{self.output}") from None
        finally:
            join(
                self._reader,
                f"nothing that {self.process.args} has started holds its output",
                GRACE_S,
            )

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.lines.append(line)


class Service:
    """A command that is started again whenever it ends, as launchd's KeepAlive and systemd's
    Restart=always do."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self._command = command
        self._env = env
        self.lines: list[str] = []
        self.num_starts = 0
        self._is_ending = threading.Event()
        self._current = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    @property
    def output(self) -> str:
        """What has been printed, by all processes it has had."""
        return "".join(self.lines)

    def await_output(self, text: str) -> None:
        """Wait until one of them has printed this."""
        try:
            wait_until(lambda: text in self.output, f"{text!r} is printed")
        except AssertionError as error:
            raise AssertionError(f"{error}; this was:\n{self.output}") from None

    def kill(self) -> None:
        """End its process, with nothing asked first, and wait until there is another."""
        before = self.num_starts
        self._current.process.kill()
        wait_until(lambda: self.num_starts > before, "it was started again")

    @property
    def process(self) -> psutil.Process:
        """The one that runs now."""
        return psutil.Process(self._current.process.pid)

    def ask_to_stop(self) -> None:
        """Have it end for good."""
        self._is_ending.set()
        join(self._thread, "nobody starts it again")
        self._current.ask_to_stop()

    def stop(self) -> int:
        """The same, and wait for it; gives its exit status."""
        self.ask_to_stop()
        return self._current.stop()

    def _start(self) -> Background:
        started = Background(self._command, self._env, self.lines)
        self.num_starts += 1
        return started

    def _keep(self) -> None:
        while not self._is_ending.is_set():
            with suppress(subprocess.TimeoutExpired):
                self._current.process.wait(0.1)
                if not self._is_ending.wait(THROTTLE_S):
                    self._current = self._start()


class RackDouble:
    """The nodes of a network as a rack; the first is the head node. Leaving the block ends all that
    runs there, and fails if something did not end with what had started it."""

    def __init__(self, network: Network, *nodes: str) -> None:
        self.network = network
        self.head = nodes[0]
        self.nodes = list(nodes)
        self.services: dict[str, Service] = {}
        self._running: list[Background | Service] = []
        # Sockets are made in it: its path has to be short.
        self._folder = Path(tempfile.mkdtemp(prefix="rack-"))
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{HTTP_PORT}", timeout=COMMAND_S)

    def home(self, node: str) -> Path:
        """Where the node keeps its keys."""
        return self._folder / node / "home"

    def sockets(self, node: str) -> Path:
        """Where its processes make their temporary folders."""
        return self._folder / node / "tmp"

    def tbcluster(
        self, node: str, *arguments: str, text: str | None = None, is_checked: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `text` is its standard input."""
        done = subprocess.run(
            self._command(node, *arguments),
            input=text or "",
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            env=self._env(node),
        )
        if is_checked:
            said = f"{done.stdout}\n{done.stderr}"
            assert done.returncode == 0, f"{node}: tbcluster {' '.join(arguments)}:\n{said}"
        return done

    def start(self, node: str, *arguments: str) -> Background:
        """Run a command beside the test."""
        running = Background(self._command(node, *arguments), self._env(node), [])
        self._running.append(running)
        return running

    def keep(self, node: str, *arguments: str) -> Service:
        """Have a command run for ever, as `tbcluster service install` does; one on each node."""
        service = Service(self._command(node, *arguments), self._env(node))
        self._running.append(service)
        self.services[node] = service
        return service

    def admit_all(self) -> list[str]:
        """Make the cluster and have the other nodes (two or more) join it, as its users would;
        gives the tokens that are used up then."""
        made = self.tbcluster(self.head, "init", "--node-name", self.head)
        joining = self.nodes[1:]
        count = str(len(joining) - 1)
        desk = self.start(self.head, "invite", "--count", count, "--wait")
        desk.await_output("Waiting for machines to join")
        tokens = [*TOKEN.findall(made.stdout), *TOKEN.findall(desk.output)]
        for node, token in zip(joining, tokens, strict=True):
            self.tbcluster(node, "join", "-", "--name", node, text=token)
        assert desk.process.wait(COMMAND_S) == 0, desk.output
        return tokens

    def enroll_all(self) -> None:
        """The same without commands, and without telling the nodes where the head node is."""
        head = TrustFolder(self.home(self.head)).init("rack", self.head)
        for node in self.nodes[1:]:
            self._enroll(head, node)

    def _enroll(self, head: HeadIdentity, node: str) -> None:
        folder = TrustFolder(self.home(node))
        members = MemberFile(TrustFolder(self.home(self.head)))
        members.admit(members.invite(COMMAND_S), folder.node().keys.public, node)
        folder.join(
            Membership(
                cluster_id=head.cluster_id,
                cluster_name=head.cluster_name,
                node_name=node,
                coordinator_key=head.keys.public,
                addresses=(),
                control_port=head.control_port,
            )
        )

    def invite(self) -> str:
        """A token for one more node."""
        (token,) = TOKEN.findall(self.tbcluster(self.head, "invite").stdout)
        return token

    def states(self) -> dict[str, str]:
        """Where each node stands, by name, as the running coordinator sees it."""
        listed = json.loads(self.tbcluster(self.head, "nodes", "--json").stdout)
        return {node["name"]: node["state"] for node in listed}

    def listening(self, node: str) -> list[int]:
        """The TCP ports of a node that other machines can reach."""
        command = [*self.network.command(node), "ss", "--listening", "--tcp", "-n", "-H"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        ends = [line.split()[3].rpartition(":") for line in shown.splitlines()]
        loopback = ("127.0.0.1", "[::1]")
        return sorted({int(port) for address, _, port in ends if address not in loopback})

    def complete(self, prompt: Sequence[int], max_tokens: int) -> httpx.Response:
        """Have the server on the head node continue these tokens greedily."""
        with self.network.inside(self.head):
            (model,) = self._http.get("/v1/models").json()["data"]
            body = {"prompt": list(prompt), "max_tokens": max_tokens, "temperature": 0}
            return self._http.post("/v1/completions", json={"model": model["id"], **body})

    def is_ready(self) -> bool:
        """Whether the server there takes requests."""
        with self.network.inside(self.head), suppress(httpx.HTTPError):
            return self._http.get("/ready").is_success
        return False

    def await_ready(self) -> None:
        """Wait until it does."""
        try:
            wait_until(self.is_ready, "the rack serves")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.said()}") from None

    def processes(self) -> list[psutil.Process]:
        """All that runs on the nodes."""
        return [process for node in self.nodes for process in self.network.processes(node)]

    def cut_power(self) -> None:
        """End everything at once, with nothing asked first, and wait until the services have all
        been started again and the rack serves."""
        before = {service: service.num_starts for service in self.services.values()}
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        wait_until(
            lambda: all(service.num_starts > starts for service, starts in before.items()),
            "everything was started again",
        )
        self.await_ready()

    def said(self) -> str:
        """What everything that runs has printed."""
        return "\n".join(running.output for running in self._running)

    def close(self) -> None:
        """End everything."""
        try:
            # The coordinator first: it would wait for workers whose agents are gone.
            if self.head in self.services:
                self.services[self.head].stop()
            for running in self._running:
                running.ask_to_stop()
            for running in self._running:
                running.stop()
            wait_until(lambda: not self.processes(), "all processes have ended", GRACE_S)
        finally:
            self._http.close()
            shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _command(self, node: str, *arguments: str) -> list[str]:
        return [*self.network.command(node), sys.executable, "-m", "tbcluster", *arguments]

    def _env(self, node: str) -> dict[str, str]:
        self.sockets(node).mkdir(parents=True, exist_ok=True)
        folders = {"TBCLUSTER_HOME": str(self.home(node)), "TMPDIR": str(self.sockets(node))}
        return {**os.environ, **folders, "PYTHONUNBUFFERED": "1"}
