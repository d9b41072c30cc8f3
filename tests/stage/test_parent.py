"""Worker processes whose parent dies before it has said what to do."""

import subprocess
import sys

import pytest

from tbcluster.wire.control import Beat, decode_report


@pytest.mark.parametrize("module", ["tbcluster.stage", "tbcluster.stage.reference"])
@pytest.mark.parametrize("said", [b"", b'{"index": 0'])
def test_a_parent_that_dies_before_it_has_spoken(module: str, said: bytes) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module], input=said, capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    reports = [decode_report(line) for line in ended.stdout.splitlines()]
    assert set(reports) <= {Beat(0)}
    assert bool(reports) == (module == "tbcluster.stage")
