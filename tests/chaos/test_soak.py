"""The soak's own judgement: what counts as wrong, as hung, as left over."""

import json
import os
import random
import re
import subprocess
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import psutil
import pytest

from benchmarks.chaos.clients import Clients, Gap
from benchmarks.chaos.faults import EARLY, Faults
from benchmarks.chaos.ground import Ground
from benchmarks.chaos.leaks import ZOMBIE, Inventory, inventory, leaks, role_of
from benchmarks.chaos.report import FaultRecord, SoakReport, spread
from tests.doubles.faults import clients as fault_clients
from tests.doubles.faults.clients import Asked
from tests.doubles.waiting import wait_until

BEFORE = Inventory(
    processes={"coordinator": 1, "agent": 3, "stage": 2},
    memory_mb={"coordinator": 100.0, "agent": 50.0, "stage": 200.0},
    open_files={"coordinator": 40, "agent": 30, "stage": 10},
    run_files=tuple("abcde"),
    shared_memory=("one",),
    sockets=40,
)
ASKED = Asked("greedy", "/v1/completions", {})
RIGHT = ["a", "b", "c"]
LOGPROBS = [-1.0, -2.0]
ERROR = 'data: {"error": {"message": "a stage was lost"}}\n\n'
DONE = "data: [DONE]\n\n"
# Nothing follows it, and the connection stays.
SILENCE = ": it goes on\n\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"processes": {"coordinator": 1, "agent": 3, "stage": 3}}, "3 processes \\(stage\\)"),
        ({"processes": {"coordinator": 1, "agent": 2, "stage": 2}}, "2 processes \\(agent\\)"),
        ({"run_files": tuple("abcdefghi")}, "9 sockets and folders instead of 5: a, b, c"),
        ({"shared_memory": ("one", "two")}, "left: two"),
        ({"sockets": 60}, "60 sockets"),
        ({"memory_mb": {"coordinator": 106.0, "agent": 50.0}}, "coordinator: 106.0 MB"),
        ({"open_files": {"coordinator": 40, "agent": 99}}, "agent: 99 open files"),
    ],
)
def test_what_is_left_is_named(change: dict[str, object], said: str) -> None:
    (problem,) = leaks(BEFORE, replace(BEFORE, **change), 2)  # type: ignore[arg-type]
    assert re.search(said, problem)


def test_another_plan_has_another_number_of_stages() -> None:
    after = replace(BEFORE, processes={**BEFORE.processes, "stage": 3})
    assert leaks(BEFORE, after, 3) == []
    assert leaks(BEFORE, after, 1) == ["3 processes (stage) instead of 1"]


def test_what_comes_and_goes_is_no_leak() -> None:
    less = {"coordinator": 90.0, "agent": 52.0, "stage": 900.0}
    after = replace(
        BEFORE, memory_mb=less, run_files=tuple("abcdefg"), shared_memory=(), sockets=45
    )
    assert leaks(BEFORE, after, 2) == []


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("python -P -m tbcluster.stage", "stage"),
        ("python -P -m tbcluster.stage.reference", "reference"),
        ("python -m tbcluster agent", "agent"),
        ("python -m tbcluster serve /folder/of/agents", "coordinator"),
        ("ip netns exec", "other"),
    ],
)
def test_processes_are_known_by_their_command(command: str, role: str) -> None:
    assert role_of(command.split()) == role


def test_a_spread_of_values() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"num": 3, "median": 2.0, "p95": 3.0, "max": 3.0}


class Script(BaseHTTPRequestHandler):
    """Answers each request with the next of the server's scripts, again and again."""

    def do_POST(self) -> None:
        server = cast(ScriptedServer, self.server)
        self.rfile.read(int(self.headers["Content-Length"]))
        script = server.scripts[min(server.num_asked, len(server.scripts) - 1)]
        server.num_asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(script.encode())
        if script == SILENCE:
            server.is_over.wait()

    def log_message(self, *_: object) -> None:
        pass


class ScriptedServer(ThreadingHTTPServer):
    scripts: tuple[str, ...] = ()
    num_asked = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Script)
        self.is_over = threading.Event()


class ScriptedGround:
    """A server that says what a test wants it to."""

    def __init__(self, *scripts: str) -> None:
        self.server = ScriptedServer()
        self.server.scripts = scripts
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.is_over.set()
        self.server.shutdown()
        self.server.server_close()

    def eight(self, num_tokens: int) -> list[Asked]:
        return [ASKED]

    def inside(self) -> nullcontext[None]:
        return nullcontext()


def answer(*pieces: str, end: str = DONE, logprobs: Sequence[float] = ()) -> str:
    """A stream of these pieces; the logprobs come with the first."""
    last = len(pieces) - 1
    choices = [
        {
            "text": piece,
            "finish_reason": "length" if at == last and end else None,
            "logprobs": {"token_logprobs": list(logprobs)} if at == 0 else None,
        }
        for at, piece in enumerate(pieces)
    ]
    events = [f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices]
    return ": it goes on\n\n" + "".join(events) + end


def after(*scripts: str, kills: bool = False) -> Clients:
    """What a client has counted after an undisturbed run and these answers."""
    ground = ScriptedGround(answer(*RIGHT, logprobs=LOGPROBS), *scripts)
    clients = Clients(cast(Ground, ground), 3)
    clients.learn()
    if kills:
        clients.kills.append(float("inf"))
    clients.start()
    wait_until(lambda: ground.server.num_asked > len(scripts), "all was asked for")
    clients.stop()
    ground.close()
    return clients


def test_the_same_answer_is_right() -> None:
    counts = after(answer(*RIGHT, logprobs=[-1.0005, -2.0])).counts
    assert counts.num_answers >= 1
    assert (counts.num_wrong, counts.num_errors, counts.problems) == (0, 0, [])


@pytest.mark.parametrize("pieces", [["a", "x", "c"], ["a", "b"], ["a", "b", "c", "c"]])
def test_another_answer_is_wrong(pieces: list[str]) -> None:
    clients = after(answer(*pieces, logprobs=LOGPROBS))
    assert clients.counts.num_wrong >= 1
    assert "is wrong at character" in clients.counts.problems[0]


@pytest.mark.parametrize("logprobs", [[-1.0, -2.2], [-1.0], [*LOGPROBS, -3.0]])
def test_what_looks_alike_and_is_another_token_is_wrong(logprobs: list[float]) -> None:
    counts = after(answer(*RIGHT, logprobs=logprobs)).counts
    assert counts.num_wrong >= 1
    assert counts.num_answers == 0


@pytest.mark.parametrize(
    "broken",
    [answer("a", end="", logprobs=LOGPROBS), answer("a", end=ERROR, logprobs=LOGPROBS)],
    ids=["closed", "error"],
)
def test_a_broken_answer_is_an_error_unless_the_coordinator_was_killed(broken: str) -> None:
    assert after(broken).counts.num_errors >= 1
    counts = after(broken, answer(*RIGHT, logprobs=LOGPROBS), kills=True).counts
    assert counts.num_errors == 0
    assert counts.num_sent_again == 1
    assert counts.num_answers >= 1


@pytest.mark.parametrize("kills", [False, True])
def test_silence_hangs_whoever_was_killed(kills: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fault_clients, "SILENCE_S", 0.2)
    counts = after(SILENCE, answer(*RIGHT, logprobs=LOGPROBS), kills=kills).counts
    assert (counts.num_hung, counts.num_errors, counts.num_sent_again) == (1, 0, 0)
    assert "hangs: nothing came for 0.2 s" in counts.problems[0]


class GroundWithStages:
    """One that says that these processes are its stages."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids

    def health(self) -> dict[str, Any]:
        stages = [{"index": at, "node": None, "pid": pid} for at, pid in enumerate(self._pids)]
        return {"stages": stages}


@pytest.mark.parametrize("kind", ["killed", "again", "wedged", "moment"])
def test_a_fault_that_hits_nobody_does_not_count(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for ground in (GroundWithStages(), GroundWithStages(gone.pid, gone.pid)):
        faults = Faults(cast(Ground, ground), 1, threading.Event())
        monkeypatch.setattr(random.Random, "choices", lambda _, of, weights: named(of, kind))
        assert faults.draw(0).perform() is None


def named(faults: list[Any], kind: str) -> list[Any]:
    return [fault for fault in faults if kind in fault.name and "coordinator" not in fault.name]


def test_who_lives_long_grows_old_in_the_second_half() -> None:
    faults = Faults(cast(Ground, GroundWithStages()), 1, threading.Event())
    early, late = ({faults.draw(at).name for _ in range(300)} for at in (0, EARLY))
    assert early - late == {"coordinator killed"}


def test_what_has_ended_and_was_not_waited_for_is_found() -> None:
    class Here:
        run_folders = ()

        def processes(self) -> list[psutil.Process]:
            return [psutil.Process()]

    def num_zombies() -> int:
        return inventory(cast(Ground, Here())).processes.get(ZOMBIE, 0)

    before = num_zombies()
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert num_zombies() == before + 1
    ended.wait()
    assert num_zombies() == before


def test_a_pause_is_the_longest_wait_after_a_fault() -> None:
    ground = ScriptedGround()
    ground.close()
    clients = Clients(cast(Ground, ground), 3)
    clients.gaps = [Gap(1.0, 2.0), Gap(10.0, 13.0), Gap(9.5, 11.0), Gap(30.0, 31.0)]
    assert clients.pause_after(10.5, 20.0) == 2.5
    assert clients.pause_after(5.0, 9.0) == 0.0


def test_a_soak_is_good_only_if_something_was_answered_and_nothing_was_wrong() -> None:
    report = SoakReport(1, 1.0)
    assert not report.is_good
    report.counts.num_answers = 1
    assert not report.is_good
    report.faults.append(FaultRecord(1.0, "worker killed", "stage 0", 0.5))
    assert report.is_good
    assert report.pauses() == {"worker killed": [0.5]}
    report.counts.num_hung = 1
    assert not report.is_good
