"""Settings that hold for every test process and for the workers it starts."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tbcluster.cluster.cluster import Cluster

# Compiling with g++ at first use costs a second a process; results are the same without.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nothing is read from or written to the user's own state folder; the processes of one run share
# theirs, in which this machine's speed is known.
HOME = tempfile.mkdtemp(prefix="tbc-home-")
IS_OWN = os.environ.setdefault("TBCLUSTER_HOME", HOME) == HOME
if not IS_OWN:
    os.rmdir(HOME)

# A shell that runs the tests in the background has Ctrl-C ignored, nohup the end of its terminal,
# and the commands under test would ignore them, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The same examples at every run, so that a change is judged and not luck. Looking for new ones is
# another job: HYPOTHESIS_PROFILE=explore draws others at each run, and more.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Of the bundled model and the toys, where models run on a CPU.
SPEED_KINDS = ("float32 64", "float32 128", "float32 256")


def pytest_configure() -> None:
    """Make the state folder in the first process: measuring would take seconds of many tests."""
    if IS_OWN:
        # Not before the environment is as it should be.
        from tests.doubles.speeds import note_speeds

        note_speeds(Path(HOME), SPEED_KINDS)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the state folder in the process that made it."""
    if IS_OWN:
        shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def demo_cluster() -> "Iterator[Cluster]":
    """The bundled model through two stages, for all that only ask: each test process has its own.
    What it counts and which prefixes it knows depends on the tests before."""
    from tbcluster.cluster.cluster import Cluster

    with Cluster(stages=2) as running:
        yield running
