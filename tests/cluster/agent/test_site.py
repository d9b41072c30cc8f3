"""What an agent knows of its machine, and fills into specs."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from tbcluster.checkpoint import Listing
from tbcluster.cluster.agent.site import find_locally
from tbcluster.demo import MODEL_PATH
from tbcluster.errors import StageError
from tbcluster.wire.errands import CalibrateSpec, FetchSpec, SurveySpec
from tests.doubles.nodes import stage_spec
from tests.doubles.sites import CERTIFICATE, CERTIFICATE_KEY, NODE_KEYS, site_at

LISTING = Listing("org/tiny", "abc", "org/tiny", ())


def test_each_spec_gets_its_part(tmp_path: Path) -> None:
    site = site_at(tmp_path, tmp_path / "models")
    stage = site.place(stage_spec())
    assert (stage.keys, stage.run_dir) == (NODE_KEYS, str(tmp_path))  # type: ignore[union-attr]
    store, folders = str(tmp_path / "store"), (str(tmp_path / "models"),)
    assert site.place(SurveySpec(LISTING)) == SurveySpec(LISTING, store, folders)
    placed = site.place(FetchSpec(LISTING, (), hub="http://hub"))
    assert placed == FetchSpec(
        LISTING, (), hub="http://hub", store=store, folders=folders, tls_files=site.tls_files
    )
    assert site.place(CalibrateSpec(("plain",))) == CalibrateSpec(("plain",))


def test_its_files_are_made_again_and_are_its_own(tmp_path: Path) -> None:
    site = site_at(tmp_path / "run")
    for _ in range(2):
        site.prepare()
        texts = [Path(path).read_text() for path in site.tls_files]
        assert texts == [CERTIFICATE, CERTIFICATE_KEY]
        assert {Path(path).stat().st_mode & 0o777 for path in site.tls_files} == {0o600}
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
        Path(site.tls_files[1]).unlink()


def test_sockets_that_no_worker_uses_are_removed_and_nothing_else(tmp_path: Path) -> None:
    site = site_at(tmp_path / "run")
    site.tidy([])  # it is not there yet
    site.prepare()
    used, left = site.run_dir / "a", site.run_dir / "b"
    with ExitStack() as bound:
        for path in (used, left):
            bound.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
    site.tidy([replace(stage_spec(), inbound=f"ipc://{used}"), SurveySpec(LISTING)])
    assert used.is_socket()
    assert not left.exists()
    assert all(Path(path).exists() for path in site.tls_files)


def test_a_folder_of_someone_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 12345)
    with pytest.raises(StageError, match="belongs to another user"):
        site_at(tmp_path).prepare()


def test_no_text_of_it_shows_its_key(tmp_path: Path) -> None:
    assert CERTIFICATE_KEY.splitlines()[1] not in repr(site_at(tmp_path))


def test_a_model_is_found_by_its_path_then_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    (models / "tiny").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere" / "tiny"
    assert find_locally("", models) == str(MODEL_PATH)
    assert find_locally("org/tiny", models) == str(models / "tiny")
    assert find_locally(str(elsewhere), models) == str(models / "tiny")
    elsewhere.mkdir(parents=True)
    assert find_locally(str(elsewhere), models) == str(elsewhere)
    assert find_locally("org/large", models) == "org/large"
    assert find_locally("org/..", models) == "org/.."
    assert find_locally("x" * 5000, models) == "x" * 5000
    assert find_locally("org/tiny", None) == "org/tiny"
