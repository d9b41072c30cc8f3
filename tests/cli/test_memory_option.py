"""What models may take, as its owner says on the command line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles.own_speed import know_speed


@pytest.mark.parametrize(
    ("size", "status", "said"),
    [
        ("1MB", 1, "tbcluster-demo does not fit"),
        ("much", 2, "'much' is no size: write 8GB, 512MB or 2GiB"),
    ],
)
def test_serve_stays_within_it(tmp_path: Path, size: str, status: int, said: str) -> None:
    know_speed(tmp_path, None)
    done = subprocess.run(
        [sys.executable, "-m", "tbcluster", "serve", "--memory", size, "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TBCLUSTER_HOME": str(tmp_path), "COLUMNS": "300"},
    )
    assert done.returncode == status, done.stderr
    assert said in done.stderr
