"""A stage loaded from its own bytes alone is the stage loaded from all of them.

`ALL_ARCHITECTURES=1` runs this for every architecture of mlx-lm's instead of a sample, in minutes.
"""

import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from tbcluster.checkpoint import Span, num_bytes
from tbcluster.core import StageRange
from tbcluster.errors import CorruptModelError
from tbcluster.model.device import Device
from tbcluster.model.facts import InspectedModel
from tbcluster.model.loading import load_stage
from tbcluster.model.source import check_folder
from tbcluster.model.spans import spans_of
from tests.doubles import architectures, giants, small_checkpoints
from tests.doubles.checkpoints import LlamaSizes, write_llama

CPU = Device("CPU", mx.float32)
AS_STORED = Device("any", None)
# Tied, looped, with shared keys and values, with experts, recurrent, ternary.
SAMPLE = ("llama", "nanbeige", "gemma4", "qwen3_next", "gpt_oss", "dbrx")
UNCUTTABLE = {"iquestloopcoder"}
NAMES = (
    sorted(set(architectures.CONFIGS) - set(architectures.EXCLUDED) - UNCUTTABLE)
    if os.environ.get("ALL_ARCHITECTURES")
    else SAMPLE
)
Writer = Callable[[Path], Path]
CHECKPOINTS: list[tuple[str, Writer]] = [
    *((name, partial(small_checkpoints.write_architecture, name=name)) for name in NAMES),
    *small_checkpoints.other_forms(),
]


def inspect(path: Path) -> InspectedModel:
    return InspectedModel(check_folder(path), CPU)


def some_cuts(inspected: InspectedModel) -> list[list[StageRange]]:
    """The model in two stages, and in three where it can be cut so often."""
    num_layers, cuts = inspected.traced.num_layers, inspected.traced.legal_cuts
    bounds = [[0, cuts[len(cuts) // 2], num_layers]]
    if len(cuts) > 1:
        bounds.append([0, cuts[0], cuts[-1], num_layers])
    return [[StageRange(*pair) for pair in pairwise(b)] for b in bounds]


def copy_only(source: Path, target: Path, spans: Iterable[Span]) -> Path:
    """The same files, with 0xff (a NaN in any type) for every byte that is in no span."""
    target.mkdir()
    for file in source.iterdir():
        content = file.read_bytes()
        copy = bytearray(b"\xff" * len(content))
        for span in spans:
            if span.file == file.name:
                copy[span.offset : span.end] = content[span.offset : span.end]
        (target / file.name).write_bytes(copy)
    return target


def parameters(path: Path, layers: StageRange) -> dict[str, bytes]:
    stage = load_stage(path, layers, CPU)
    # What it does not need is zeros.
    found = tree_flatten(stage._model.parameters())
    return {path: np.array(array.flatten().view(mx.uint8)).tobytes() for path, array in found}


@pytest.mark.parametrize(
    "write", [write for _, write in CHECKPOINTS], ids=[name for name, _ in CHECKPOINTS]
)
def test_a_stage_is_made_of_its_own_bytes(tmp_path: Path, write: Writer) -> None:
    whole = write(tmp_path / "whole")
    inspected = inspect(whole)
    for number, ranges in enumerate(some_cuts(inspected)):
        for stage, spans in zip(ranges, spans_of(inspected, ranges), strict=True):
            part = copy_only(whole, tmp_path / f"{number} {stage}", spans)
            assert parameters(part, stage) == parameters(whole, stage)
            in_all = sum(file.stat().st_size for file in whole.iterdir())
            assert num_bytes(spans) < in_all


def test_no_tensor_of_a_stage_is_fetched_in_vain(tmp_path: Path) -> None:
    """The test above can fail: without any one tensor the stage is another."""
    whole = write_llama(tmp_path / "whole", LlamaSizes(num_hidden_layers=3))
    stage = StageRange(1, 2)
    (spans,) = spans_of(inspect(whole), [stage])
    expected = parameters(whole, stage)
    for name, tensor in tensors_of(whole / "model.safetensors").items():
        rest = [part for span in spans for part in without(span, tensor)]
        part = copy_only(whole, tmp_path / name, rest)
        assert (parameters(part, stage) != expected) == (".1." in name)


def tensors_of(file: Path) -> dict[str, Span]:
    content = file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header.pop("__metadata__")
    return {
        name: Span(file.name, start + first, end - first)
        for name, entry in header.items()
        for first, end in (entry["data_offsets"],)
    }


def without(span: Span, hole: Span) -> list[Span]:
    if span.file != hole.file or span.end <= hole.offset or hole.end <= span.offset:
        return [span]
    before = Span(span.file, span.offset, max(0, hole.offset - span.offset))
    return [before, Span(span.file, hole.end, max(0, span.end - hole.end))]


def test_adjacent_tensors_are_one_span_and_small_files_are_whole(tmp_path: Path) -> None:
    write_llama(tmp_path, LlamaSizes(num_hidden_layers=3), num_shards=2, with_tokenizer=True)
    (tmp_path / "README.md").write_text("not for a stage")
    (tmp_path / "notes.safetensors").write_text("not for mlx-lm")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    (spans,) = spans_of(inspect(tmp_path), [StageRange(0, 3)])
    files = [
        "1_Pooling/config.json",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert spans == tuple(Span(file, 0, (tmp_path / file).stat().st_size) for file in files)


def test_a_tensor_in_two_files_is_fetched_from_both(tmp_path: Path) -> None:
    write_llama(tmp_path, LlamaSizes(num_hidden_layers=2))
    name = "model.layers.1.mlp.up_proj.weight"
    twice = {name: mx.zeros((128, 64))}
    mx.save_safetensors(str(tmp_path / "model-again.safetensors"), twice)
    first, second = spans_of(inspect(tmp_path), [StageRange(0, 1), StageRange(1, 2)])
    size = 128 * 64 * 4
    again = [num_bytes(s for s in spans if "again" in s.file) for spans in (first, second)]
    assert again[0] < size < again[1]


def test_a_header_that_breaks_meanwhile(tmp_path: Path) -> None:
    write_llama(tmp_path, LlamaSizes(num_hidden_layers=1))
    inspected = inspect(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0[]")
    with pytest.raises(CorruptModelError, match=r"model\.safetensors has no usable header"):
        spans_of(inspected, [StageRange(0, 1)])


def test_the_stages_of_a_giant_are_all_of_it_and_share_next_to_nothing(tmp_path: Path) -> None:
    path = giants.write_quantized(tmp_path)
    inspected = InspectedModel(check_folder(path), AS_STORED)
    ranges = [StageRange(start, min(start + 8, 61)) for start in range(0, 61, 8)]
    stages = spans_of(inspected, ranges)
    in_all = sum(file.stat().st_size for file in path.iterdir())
    assert in_all <= sum(num_bytes(spans) for spans in stages) < in_all * 1.0001
    covered = {span.file for spans in stages for span in spans}
    assert covered == {file.name for file in path.iterdir()}
    # Headers and small files of 90 files; the weights of neighbouring layers lie together.
    assert max(len(spans) for spans in stages) <= len(covered) + 1
