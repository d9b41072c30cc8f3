"""A Mac is kept awake for as long as a process needs it."""

import os
from pathlib import Path

import psutil
import pytest

from tbcluster.hardware.sleep import keep_awake
from tests.doubles.waiting import wait_until


def children() -> list[psutil.Process]:
    return psutil.Process().children()


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    path = tmp_path / "caffeinate"
    path.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\nexec sleep 600\n')
    path.chmod(0o755)
    return path


def test_it_is_kept_awake_until_told_otherwise(tool: Path) -> None:
    before = len(children())
    stop = keep_awake(1234, tool)
    asked = tool.parent / "asked"
    wait_until(lambda: asked.is_file() and asked.read_text() != "", "the tool has begun")
    # Not -d: the display may sleep.
    assert asked.read_text() == "-is -w 1234\n"
    assert len(children()) == before + 1
    stop()
    assert len(children()) == before
    stop()


def test_a_tool_that_has_ended_is_no_problem(tmp_path: Path) -> None:
    tool = tmp_path / "caffeinate"
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    before = len(children())
    stop = keep_awake(os.getpid(), tool)
    stop()
    assert len(children()) == before


def test_other_systems_are_left_alone(tmp_path: Path) -> None:
    before = len(children())
    keep_awake(os.getpid(), tmp_path / "caffeinate")()
    assert len(children()) == before
