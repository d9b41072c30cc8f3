"""Settings that hold for every test process and for the workers it starts."""

import os
import shutil
import tempfile

import pytest

# Compiling with g++ at first use costs a second a process; results are the same without.
os.environ.setdefault("MLX_DISABLE_COMPILE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nothing is read from or written to the user's own state folder; the processes of one run share
# theirs, so that this machine's speed is measured once.
HOME = tempfile.mkdtemp(prefix="tbc-home-")
IS_OWN = os.environ.setdefault("TBCLUSTER_HOME", HOME) == HOME
if not IS_OWN:
    os.rmdir(HOME)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the state folder in the process that made it."""
    if IS_OWN:
        shutil.rmtree(HOME, ignore_errors=True)
