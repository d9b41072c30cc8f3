"""Real child processes that speak the protocol, in a few lines each."""

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tbcluster.cluster import supervisor
from tbcluster.cluster.pulse import Patience
from tbcluster.cluster.supervisor import Worker
from tbcluster.core import StageRange
from tbcluster.wire.control import (
    Beat,
    Failed,
    Loading,
    Ready,
    ReferenceSpec,
    Report,
    StageSpec,
    encode_line,
)
from tests.doubles.processes import is_alive

DEADLINE_S = 30.0
SPEC = ReferenceSpec("/some/model", (1, 2), 3)
STAGE = StageSpec(0, 1, "/some/model", StageRange(0, 1), 1, "", "")
LOADING, READY = Loading(1, 2), Ready(5, "cpu", "a note")
PATIENCE = Patience(ready_s=1.0)
SILENT = "it did not answer for 1 s"
DONE = "ended with status 0"

PRELUDE = """
import os, signal, sys, time
spec = sys.stdin.buffer.readline()
def say(line):
    os.write(1, line)
def until_told():
    return sys.stdin.buffer.readline()
"""


class Child:
    """A worker and what it was heard to say: reports in order, then how it ended."""

    def __init__(self, module: str, spec: ReferenceSpec | StageSpec = SPEC) -> None:
        self._heard: queue.SimpleQueue[Report | str] = queue.SimpleQueue()
        self.worker = Worker(module, spec, self._heard.put, self._heard.put, PATIENCE)

    def hear(self) -> Report | str:
        return self._heard.get(timeout=DEADLINE_S)

    def hears_no_more(self) -> bool:
        return self._heard.empty()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["Start"]:
    """Starts a child that runs this text after the prelude; none outlives the test."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    children: list[Child] = []

    def start_child(text: str, spec: ReferenceSpec | StageSpec = SPEC) -> Child:
        (tmp_path / "a_child.py").write_text(PRELUDE + text)
        children.append(Child("a_child", spec))
        return children[-1]

    yield start_child
    monkeypatch.setattr(supervisor, "STOP_GRACE_S", 0.0)
    for child in children:
        child.worker.join()


Start = Callable[..., Child]


def test_reports_come_in_order_and_the_end_last(start: Start) -> None:
    child = start(f"say({encode_line(LOADING)!r} + {encode_line(READY)!r}); sys.exit(3)")
    assert [child.hear() for _ in range(3)] == [LOADING, READY, "ended with status 3"]
    child.worker.join()
    assert child.hears_no_more()


def test_the_child_gets_its_spec_and_the_stop_line(start: Start) -> None:
    child = start(
        f"say({encode_line(READY)!r})\n"
        f"as_told = spec == {encode_line(SPEC)!r} and until_told() == b'stop\\n'\n"
        "sys.exit(7 if as_told else 1)"
    )
    assert child.hear() == READY
    assert is_alive(child.worker.pid)
    child.worker.stop()
    assert not is_alive(child.worker.pid)
    assert child.hear() == "ended with status 7"


def test_a_report_in_pieces_is_one_report(start: Start) -> None:
    line = encode_line(READY)
    child = start(
        f"say({line[:9]!r}); say({line[9:-1]!r}); say({line[-1:]!r} + {encode_line(LOADING)!r})"
    )
    assert [child.hear() for _ in range(3)] == [READY, LOADING, DONE]


def test_what_is_no_report_is_shown_and_skipped(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = Failed("ParityError", "broken")
    deep = b'{"type":"loading","loaded_bytes":1,"total_bytes":2,"x":'
    child = start(
        f"say(b'a library says h\\xffllo\\n\\n' + {deep!r} + b'[' * 99999 + b'\\n')\n"
        f"say({encode_line(failed)!r} + b'no end of line')"
    )
    assert [child.hear() for _ in range(2)] == [failed, DONE]
    shown = capsys.readouterr().err
    assert "a library says h\N{REPLACEMENT CHARACTER}llo\n" in shown
    assert shown.endswith("no end of line")


def test_a_death_by_signal_is_told(start: Start) -> None:
    child = start("os.kill(os.getpid(), signal.SIGKILL)")
    assert child.hear() == "was killed by signal 9"


def test_a_child_that_ignores_stop_is_killed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "STOP_GRACE_S", 0.1)
    child = start(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"say({encode_line(READY)!r})\n"
        "time.sleep(600)"
    )
    assert child.hear() == READY
    child.worker.stop()
    assert not is_alive(child.worker.pid)
    assert child.hear() == "was killed by signal 9"


def test_a_child_that_closed_its_input_is_still_followed_to_its_end(
    start: Start, tmp_path: Path
) -> None:
    go_on = tmp_path / "go-on"
    child = start(
        "os.close(0)\n"
        f"say({encode_line(READY)!r})\n"
        f"while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n"
        "os._exit(4)"
    )
    assert child.hear() == READY
    child.worker.ask_to_stop()  # nobody reads it
    go_on.touch()
    assert child.hear() == "ended with status 4"
    child.worker.join()
    child.worker.ask_to_stop()  # its pipe is closed by now


def test_join_returns_after_the_last_word(start: Start) -> None:
    start("")  # writes the module
    may_hear = threading.Event()
    ends: list[str] = []

    def on_exit(what: str) -> None:
        may_hear.wait(DEADLINE_S)
        ends.append(what)

    worker = Worker("a_child", SPEC, lambda _: None, on_exit)
    joining = threading.Thread(target=worker.join)
    joining.start()
    joining.join(0.3)
    assert joining.is_alive()
    may_hear.set()
    joining.join(DEADLINE_S)
    assert ends == [DONE]


def test_a_listener_may_stop_its_worker(start: Start, tmp_path: Path) -> None:
    """`join` in the thread that reads the reports must not wait for itself."""
    (tmp_path / "another.py").write_text(
        PRELUDE + f"say({encode_line(READY)!r}); until_told(); sys.exit(5)"
    )
    ends: queue.SimpleQueue[str] = queue.SimpleQueue()
    workers: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    worker = Worker("another", SPEC, lambda _: workers.get(timeout=DEADLINE_S).stop(), ends.put)
    workers.put(worker)
    assert ends.get(timeout=DEADLINE_S) == "ended with status 5"
    worker.join()


# Stage workers, which are watched


def test_beats_keep_a_worker_alive_and_go_no_further(start: Start) -> None:
    child = start(
        f"say({encode_line(READY)!r})\n"
        "for _ in range(25):\n"
        f"    say({encode_line(Beat(1))!r})\n"
        "    time.sleep(0.1)\n"
        f"say({encode_line(LOADING)!r})\n"
        "until_told()",
        STAGE,
    )
    assert [child.hear() for _ in range(3)] == [READY, LOADING, f"was killed: {SILENT}"]


def test_only_stage_workers_are_watched(start: Start) -> None:
    script = f"say({encode_line(READY)!r}); until_told()"
    watched, other = start(script, STAGE), start(script)
    assert [watched.hear() for _ in range(2)] == [READY, f"was killed: {SILENT}"]
    assert other.hear() == READY
    assert is_alive(other.worker.pid)
    assert other.hears_no_more()


def test_a_kill_for_lack_of_memory_is_a_failure_of_its_own(start: Start) -> None:
    """No machine has what this one still has to load."""
    line = encode_line(Loading(1 << 30, 1 << 60))
    child = start(f"say({line!r}); os.kill(os.getpid(), signal.SIGKILL)", STAGE)
    _, failed, what = (child.hear() for _ in range(3))
    assert isinstance(failed, Failed)
    assert failed == Failed("StageMemoryError", str(what))
    assert failed.message.startswith("was killed by signal 9 while loading 1 GiB of ")
    assert failed.message.endswith(" of memory left on the machine: probably out of memory")


def test_one_that_does_not_even_end_when_it_is_killed_is_given_up(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits for a device; here another process keeps its output open."""
    monkeypatch.setattr(supervisor, "KILL_GRACE_S", 0.5)
    go_on = tmp_path / "go-on"
    child = start(
        "if os.fork() == 0:\n"
        f"    while not os.path.exists({str(go_on)!r}): time.sleep(0.01)\n"
        f"    say({encode_line(LOADING)!r})\n"
        "    os._exit(0)\n"
        f"say({encode_line(READY)!r}); until_told()",
        STAGE,
    )
    told = [child.hear(), child.hear()]
    assert told == [READY, f"was killed, but has not ended yet: {SILENT}"]
    child.worker.join()
    go_on.touch()
    monkeypatch.setattr(supervisor, "KILL_GRACE_S", DEADLINE_S)
    child.worker.join()
    assert child.hears_no_more()
