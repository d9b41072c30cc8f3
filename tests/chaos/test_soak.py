"""The soak's own judgement: what counts as wrong, as hung, as left over."""

import re
import threading
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

import pytest

from benchmarks.chaos.clients import Clients, Gap
from benchmarks.chaos.ground import Ground
from benchmarks.chaos.leaks import Inventory, leaks, role_of
from benchmarks.chaos.report import FaultRecord, SoakReport, spread
from tests.doubles.faults.clients import Asked
from tests.doubles.waiting import wait_until

BEFORE = Inventory(
    processes={"coordinator": 1, "agent": 3, "stage": 2},
    memory_mb={"coordinator": 100.0, "agent": 50.0, "stage": 200.0},
    open_files={"coordinator": 40, "agent": 30, "stage": 10},
    run_files=5,
    shared_memory=("one",),
    sockets=40,
)
ASKED = Asked("greedy", "/v1/completions", {})
RIGHT = ["a", "b", "c"]
ERROR = 'data: {"error": {"message": "a stage was lost"}}\n\n'
DONE = "data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"processes": {"coordinator": 1, "agent": 3, "stage": 3}}, "3 processes \\(stage\\)"),
        ({"processes": {"coordinator": 1, "agent": 2, "stage": 2}}, "2 processes \\(agent\\)"),
        ({"run_files": 9}, "9 sockets and folders instead of 5"),
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
    after = replace(BEFORE, memory_mb=less, run_files=7, shared_memory=(), sockets=45)
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

    def log_message(self, *_: object) -> None:
        pass


class ScriptedServer(ThreadingHTTPServer):
    scripts: tuple[str, ...] = ()
    num_asked = 0


class ScriptedGround:
    """A server that says what a test wants it to."""

    def __init__(self, *scripts: str) -> None:
        self.server = ScriptedServer(("127.0.0.1", 0), Script)
        self.server.scripts = scripts
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def eight(self, num_tokens: int) -> list[Asked]:
        return [ASKED]

    def inside(self) -> nullcontext[None]:
        return nullcontext()


def answer(*pieces: str, end: str = DONE) -> str:
    """A stream of these pieces."""
    last = len(pieces) - 1
    events = [
        f'data: {{"choices": [{{"text": "{piece}", "finish_reason": '
        f"{chr(34) + 'length' + chr(34) if at == last and end else 'null'}}}]}}\n\n"
        for at, piece in enumerate(pieces)
    ]
    return ": it goes on\n\n" + "".join(events) + end


def after(*scripts: str, kills: bool = False) -> Clients:
    """What a client has counted after an undisturbed run and these answers."""
    ground = ScriptedGround(answer(*RIGHT), *scripts)
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
    counts = after(answer(*RIGHT)).counts
    assert counts.num_answers >= 1
    assert (counts.num_wrong, counts.num_errors, counts.problems) == (0, 0, [])


@pytest.mark.parametrize("pieces", [["a", "x", "c"], ["a", "b"], ["a", "b", "c", "c"]])
def test_another_answer_is_wrong(pieces: list[str]) -> None:
    clients = after(answer(*pieces))
    assert clients.counts.num_wrong >= 1
    assert "is wrong at character" in clients.counts.problems[0]


@pytest.mark.parametrize(
    "broken", [answer("a", end=""), answer("a", end=ERROR)], ids=["closed", "error"]
)
def test_a_broken_answer_is_an_error_unless_the_coordinator_was_killed(broken: str) -> None:
    assert after(broken).counts.num_errors >= 1
    counts = after(broken, answer(*RIGHT), kills=True).counts
    assert counts.num_errors == 0
    assert counts.num_sent_again == 1
    assert counts.num_answers >= 1


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
    report.faults.append(FaultRecord(1.0, "worker killed", "stage 0", 0.5))
    assert report.is_good
    assert report.pauses() == {"worker killed": [0.5]}
    report.counts.num_hung = 1
    assert not report.is_good
