"""`tbcluster drain` and `undrain` as a user runs them, with a control plane as `serve` has it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tbcluster.cli.main import app
from tbcluster.errors import RackError, TrustError, UnknownNodeError
from tbcluster.machine import Serving
from tests.doubles.control_planes import RackOfScripts
from tests.doubles.trusted import TrustedHead


def invoke(folder: Path, *arguments: str) -> Result:
    """Run a command in this process; what it raises is in the result."""
    return CliRunner().invoke(app, arguments, env={"TBCLUSTER_HOME": str(folder)})


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[RackOfScripts]:
    """One whose node "one" runs a stage until it is drained."""
    with RackOfScripts(tmp_path) as made:
        made.bring_up("one")
        lines = {"one": ("1: layers 16-31",)}

        def describe() -> Serving:
            if made.member("one").is_drained and not lines["one"]:
                return Serving("m", "ready", {})
            if made.member("one").is_drained:
                lines["one"] = ()
                return Serving("m", "recovering: moving", {"one": ("1: layers 16-31",)})
            return Serving("m", "ready", lines)

        made.plane.describe = describe
        yield made


def test_a_node_is_drained_once_nothing_runs_there(rack: RackOfScripts, tmp_path: Path) -> None:
    rack.plane.may_drain = lambda name: None
    done = invoke(tmp_path, "drain", "one", "--json")
    assert done.exit_code == 0, done.exception
    assert "one runs 1: layers 16-31; recovering: moving" in done.stderr
    assert "one runs nothing now: it may be switched off" in done.stderr
    assert "`tbcluster undrain one`" in done.stderr
    node = json.loads(done.stdout)
    assert (node["name"], node["state"], node["is_drained"]) == ("one", "online", True)
    assert rack.plane.usable() == []
    shown = invoke(tmp_path, "nodes")
    assert "drained" in shown.stdout
    assert "drained" in invoke(tmp_path, "status").stdout
    done = invoke(tmp_path, "undrain", rack.id("one"), "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["name"] == "one"
    assert "one takes part again" in done.stderr
    assert "one was not drained" in invoke(tmp_path, "undrain", "one", "--json").stderr
    assert not rack.member("one").is_drained
    assert "drained" not in invoke(tmp_path, "nodes").stdout


def test_a_node_that_is_needed_is_drained_by_force_alone(
    rack: RackOfScripts, tmp_path: Path
) -> None:
    rack.plane.may_drain = lambda name: f"m needs 9.0 GB without {name}, and 8.0 GB are there"
    error = invoke(tmp_path, "drain", "one").exception
    assert isinstance(error, RackError)
    assert "m needs 9.0 GB without one" in str(error)
    assert "--force" in str(error)
    assert not rack.member("one").is_drained
    assert invoke(tmp_path, "drain", "one", "--force").exit_code == 0
    assert rack.member("one").is_drained


def test_what_still_runs_when_the_time_is_up_is_named(rack: RackOfScripts, tmp_path: Path) -> None:
    rack.plane.describe = lambda: Serving("m", "recovering", {"one": ("1: layers 16-31",)})
    error = invoke(tmp_path, "drain", "one", "--timeout", "0").exception
    assert isinstance(error, RackError)
    assert "one runs 1: layers 16-31" in str(error)
    assert rack.member("one").is_drained


def test_without_a_coordinator_the_list_of_nodes_says_it(tmp_path: Path) -> None:
    head = TrustedHead(tmp_path)
    done = invoke(tmp_path, "drain", "head", "--json")
    assert "nothing is served: it still coordinates" in done.stderr
    assert json.loads(done.stdout)["is_drained"]
    assert head.members.nodes()[0].is_drained
    assert not json.loads(invoke(tmp_path, "undrain", "head", "--json").stdout)["is_drained"]
    assert not head.members.nodes()[0].is_drained


def test_who_is_no_node_is_neither_drained_nor_taken_back(
    rack: RackOfScripts, tmp_path: Path
) -> None:
    rack.admit("gone")
    rack.trusted.members.revoke("gone")
    for command in ("drain", "undrain"):
        assert isinstance(invoke(tmp_path, command, "mini9").exception, UnknownNodeError)
        assert isinstance(invoke(tmp_path, command, "gone").exception, TrustError)
