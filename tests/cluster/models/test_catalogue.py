"""Which models a server knows of."""

import json
from pathlib import Path

from tbcluster.cluster.models.catalogue import Catalogue, Loadable, models_in


def write_config(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (path / "model.safetensors").write_bytes(bytes(100))
    return path


def test_a_folder_holds_models_by_name_or_by_owner_and_name(tmp_path: Path) -> None:
    small = write_config(tmp_path / "small")
    write_config(tmp_path / "owner" / "large")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    found = {loadable.name: loadable for loadable in models_in(tmp_path)}
    assert sorted(found) == ["owner/large", "small"]
    assert found["small"].source == small
    assert found["small"].config() == {"model_type": "llama"}
    assert found["small"].size_bytes() == 100


def test_what_is_put_into_a_folder_later_is_found(tmp_path: Path) -> None:
    catalogue = Catalogue((), (tmp_path,))
    assert catalogue.find("late") is None
    write_config(tmp_path / "late")
    assert catalogue.find("late") is not None


def test_a_name_that_comes_twice_means_the_first(tmp_path: Path) -> None:
    write_config(tmp_path / "model")
    given = Loadable("model", "/elsewhere/model")
    held = Loadable("owner/held", "owner/held")
    catalogue = Catalogue((given,), (tmp_path,), (lambda: [held, Loadable("model", None)],))
    assert list(catalogue.all().values()) == [given, held]
    assert catalogue.find("model") is given
    assert catalogue.find("owner/held") is held


def test_a_model_is_single_only_if_no_other_can_come(tmp_path: Path) -> None:
    given = Loadable("model", None)
    assert Catalogue((given,)).is_single
    assert not Catalogue((given,), (tmp_path,)).is_single
    assert not Catalogue((given, given)).is_single


def test_what_is_not_here_has_no_facts(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    assert list(models_in(tmp_path / "nowhere")) == []
    assert Loadable("owner/model", "owner/model").config() == {}
    assert Loadable("broken", broken, broken).config() == {}
    assert Loadable("gone", "x", tmp_path / "gone").size_bytes() == 0
