"""Which model exactly a stage holds."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest

from tbcluster.cluster import identity
from tbcluster.cluster.identity import identity_of
from tbcluster.demo import MODEL_PATH
from tbcluster.model.device import Device
from tbcluster.model.source import check_folder
from tbcluster.weights.library import ModelSource, open_model_source

CPU = Device("CPU", mx.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL_PATH, tmp_path / "model"))


def of(model: Path, device: Device = CPU) -> str:
    return identity_of(check_folder(model), None, device)


def test_it_stays_as_long_as_the_model_does(model: Path) -> None:
    assert of(model) == of(model)
    (model / "README.md").write_text("words")
    assert of(model) == of(model)
    listed = open_model_source(str(model))
    assert identity_of(check_folder(model), listed, CPU) == of(model)


def test_what_is_loaded_or_computes_with_it_changes_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {of(model), of(model, Device("Metal GPU", None))}
    os.utime(model / "model.safetensors", ns=(1, 1))
    seen.add(of(model))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    seen.add(of(model))
    monkeypatch.setattr(identity, "version", lambda package: "another")
    seen.add(of(model))
    monkeypatch.setattr(identity, "PROTOCOL_VERSION", -1)
    seen.add(of(model))
    assert len(seen) == 6


def test_a_commit_is_the_same_wherever_it_lies(model: Path, tmp_path: Path) -> None:
    listing = replace(open_model_source(str(model)).listing, source="owner/model")
    elsewhere = Path(shutil.copytree(model, tmp_path / "elsewhere", copy_function=shutil.copyfile))
    here, there = (
        identity_of(check_folder(path), ModelSource(listing, path, True), CPU)
        for path in (model, elsewhere)
    )
    assert here == there
    other = ModelSource(replace(listing, revision="f" * 40), model, True)
    assert identity_of(check_folder(model), other, CPU) != here
