"""Plans on disk."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.plan_file import MAX_FILE_BYTES, read_plan, save_plan
from tbcluster.cluster.plan_request import plan_request
from tbcluster.core import StageRange
from tbcluster.errors import PlanError
from tests.doubles.plans import ONE, TWO


def edited(path: Path, **fields: Any) -> Path:
    """A plan file in which a person has changed these."""
    save_plan(path, ONE, "owner/name", None)
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return path


def test_what_decides_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    save_plan(file, TWO, "owner/name", 8)
    saved = read_plan(file)
    assert saved.model == "owner/name"
    assert (saved.context, saved.streams, saved.kv_bits) == (8192, 4, 8)
    assert plan_request(None, saved).wishes.plan_file == str(file)
    assert saved.placement == tuple(
        tuple((stage.node, stage.layers) for stage in replica.stages) for replica in TWO.replicas
    )


def test_a_plan_of_the_bundled_model_names_no_folder(tmp_path: Path) -> None:
    save_plan(tmp_path / "plan.json", ONE, None, None)
    assert read_plan(tmp_path / "plan.json").model is None


def test_predictions_are_for_people_alone(tmp_path: Path) -> None:
    file = edited(tmp_path / "plan.json", predictions=["nonsense"])
    assert read_plan(file).placement
    save_plan(file, ONE, None, None)
    predicted = json.loads(file.read_text())["predictions"]["replicas"][0]
    assert predicted["tokens_per_s"] == 41.3
    assert predicted["stages"][0]["decode_ms"] == 21.3
    content = json.loads(file.read_text())
    del content["predictions"], content["kv_bits"]
    file.write_text(json.dumps(content))
    assert read_plan(file).streams == 2


def test_one_layer_may_be_written_alone(tmp_path: Path) -> None:
    stages = [{"node": "a", "layers": "0"}, {"node": "b", "layers": " 1-1 "}]
    saved = read_plan(edited(tmp_path / "plan.json", replicas=[stages]))
    assert [layers for _, layers in saved.placement[0]] == [StageRange(0, 1), StageRange(1, 2)]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": 2}, "version is 2, and this tbcluster reads 1"),
        ({"streams": 0}, "streams is 0: write 1 or more"),
        ({"context": "8k"}, "context: Expected `int`, got `str`"),
        ({"kv_bits": 3}, "kv_bits is 3: write 8 or 4"),
        ({"replicas": []}, "replicas: each has to have a stage"),
        ({"replicas": [[]]}, "replicas: each has to have a stage"),
        (
            {"replicas": [[{"node": "a", "layers": "16-"}]]},
            "replicas[0][0].layers is '16-': write FIRST-LAST",
        ),
        ({"replicas": [[{"node": "a", "layers": "9-3"}]]}, "replicas[0][0].layers is '9-3'"),
        ({"replicas": [[{"node": 1, "layers": "0"}]]}, "replicas[0][0].node: Expected `str`"),
        ({"replicas": [[{"node": "a"}]]}, "missing required field `layers`"),
        ({"speed": 3}, "unknown field `speed`"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    file = edited(tmp_path / "plan.json", **fields)
    with pytest.raises(PlanError, match=re.escape(words)) as caught:
        read_plan(file)
    assert str(file) in str(caught.value)


def test_a_file_without_a_version_is_told_so(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("{}")
    with pytest.raises(PlanError, match=r"plan\.json is no plan: it has no version"):
        read_plan(file)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b"{" * 9, b"1"])
def test_other_files_are_no_plans(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "plan.json"
    file.write_bytes(content)
    with pytest.raises(PlanError, match=str(file)):
        read_plan(file)


@given(content=st.binary() | st.text().map(json.dumps).map(str.encode))
def test_no_content_ends_in_another_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "some-plan.json"
    file.write_bytes(content)
    with pytest.raises(PlanError):
        read_plan(file)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read: No such file"):
        read_plan(tmp_path / "none.json")
    with pytest.raises(PlanError, match=r"cannot be written to .*none/plan\.json: No such file"):
        save_plan(tmp_path / "none" / "plan.json", ONE, None, None)
    endless = tmp_path / "endless.json"
    with endless.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(PlanError, match="it is no plan"):
        read_plan(endless)


def test_the_example_in_the_documents_is_a_plan(tmp_path: Path) -> None:
    document = Path(__file__).parent.parent.parent / "docs" / "planning.md"
    (example,) = re.findall(r"```json\n(.*?)```", document.read_text(), re.DOTALL)
    file = tmp_path / "plan.json"
    file.write_text(example)
    assert read_plan(file).placement == (
        (("mini1", StageRange(0, 32)), ("mini2", StageRange(32, 64))),
    )
