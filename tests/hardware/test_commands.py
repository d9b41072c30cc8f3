"""Running the system's tools."""

import os
import signal
import sys
import time
from pathlib import Path

from tbcluster.hardware.commands import Output, run_tool, run_tools


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_output() -> None:
    assert run_tool(["/bin/echo", "a  b", "$HOME", ";"], 30) == Output("a  b $HOME ;\n")


def test_tools_speak_english_and_have_no_input(tmp_path: Path) -> None:
    tool = script(tmp_path / "tool", 'cat; echo "$LC_ALL $LANG"; test -n "$PATH" && echo path')
    assert run_tool([tool], 30) == Output("C C\npath\n")


def test_an_absent_tool() -> None:
    output = run_tool(["/nonexistent/rdma_ctl", "status"], 30)
    assert output == Output("", "rdma_ctl: /nonexistent/rdma_ctl does not exist", is_absent=True)


def test_a_tool_that_may_not_be_run(tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    assert run_tool([str(tmp_path / "tool")], 30) == Output("", "tool: Permission denied")


def test_what_a_failing_tool_printed_is_kept(tmp_path: Path) -> None:
    tool = script(tmp_path / "tool", "echo half; echo warning >&2; echo broken >&2; exit 3")
    assert run_tool([tool], 30) == Output("half\n", "tool: broken")
    assert run_tool([script(tmp_path / "mute", "exit 3")], 30) == Output("", "mute: exit status 3")


def test_a_tool_that_was_killed(tmp_path: Path) -> None:
    tool = script(tmp_path / "tool", "kill -9 $$")
    assert run_tool([tool], 30) == Output("", "tool: exit status -9")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    tool = script(tmp_path / "tool", "printf 'a\\377b'")
    assert run_tool([tool], 30) == Output("a\ufffdb")


def test_a_tool_that_hangs(tmp_path: Path) -> None:
    began = time.monotonic()
    # Its child keeps the pipe open.
    tool = script(tmp_path / "tool", f"sleep 600 & echo $! >{tmp_path}/child; wait")
    assert run_tool([tool], 1) == Output("", "tool: no answer within 1 s")
    assert time.monotonic() - began < 60
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_tools_run_at_the_same_time(tmp_path: Path) -> None:
    # Each waits for the other: one after the other they would never end.
    meet = "touch {mine}; until test -e {other}; do sleep 0.02; done; echo met"
    paths = {"mine": tmp_path / "a", "other": tmp_path / "b"}
    there = script(tmp_path / "there", meet.format(**paths))
    back = script(tmp_path / "back", meet.format(mine=paths["other"], other=paths["mine"]))
    outputs = run_tools({"there": [there], "back": [back], "py": [sys.executable, "-V"]}, 30)
    assert outputs["there"] == outputs["back"] == Output("met\n")
    assert outputs["py"].text.startswith("Python 3.")
