"""The measured links on disk."""

from pathlib import Path

import pytest

from tbcluster.cluster.rack.link_file import LinkFile
from tbcluster.errors import TrustError
from tbcluster.hardware.private_file import PrivateFile


def test_what_was_saved_is_loaded_and_what_is_no_list_of_links_is_measured_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    links = LinkFile(PrivateFile(tmp_path / "links.json", TrustError))
    assert links.load() == []
    links.save(b"[]")
    assert links.load() == []
    assert caplog.text == ""
    links.save(b"{")
    assert links.load() == []
    assert "the links are measured anew" in caplog.text


def test_links_that_cannot_be_kept_end_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    links = LinkFile(PrivateFile(tmp_path / "file" / "links.json", TrustError))
    links.save(b"[]")
    assert "the links will be measured anew" in caplog.text
