"""What of a folder belongs to a model."""

from pathlib import Path

import pytest

from tbcluster.errors import CorruptModelError
from tbcluster.weights import listing
from tbcluster.weights.listing import list_folder


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def test_a_model_and_the_folders_in_it(tmp_path: Path) -> None:
    write(tmp_path, "config.json", "1_Pooling/config.json", ".hidden/a.json", ".b.json", "run.py")
    write(tmp_path, "some/other/tree/config.json")
    assert [file.path for file in list_folder(tmp_path).files] == [
        "1_Pooling/config.json",
        "config.json",
    ]


def test_a_folder_that_is_no_model_is_not_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "model/config.json")
    monkeypatch.setattr(listing, "_list_file", lambda *_: pytest.fail("a file was read"))
    with pytest.raises(CorruptModelError, match=r"holds no config\.json"):
        list_folder(tmp_path)
