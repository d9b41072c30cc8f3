"""A ternary BitNet beside the float model of the same shape, on this machine's processor: what a
token takes.

Both have random weights and run through one stage of tbcluster: off Metal the ternary weights are
repacked to 2-bit quantization (`tbcluster.model.bitnet`), the float model computes in float32 as
all do on a CPU. In turns, each decodes the same number of tokens after the same prompt; what is
counted begins with the first token. Joules are told where this machine has a meter, which counts
all that runs on it; processor seconds of the worker are told everywhere.
"""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx
import psutil
from mlx.utils import tree_flatten
from mlx_lm.models import bitnet

from benchmarks.harness import MEGABYTE, Report, interleaved_pairs, note, report_ratio
from tbcluster import Cluster
from tbcluster.cluster.streams import stream
from tbcluster.hardware.power.meter import Meter
from tbcluster.hardware.power.opening import open_meter
from tests.doubles.checkpoints import LlamaSizes, write_llama, write_tokenizer

NUM_PAIRS = 5
PROMPT = list(range(5, 21))
SIZES = LlamaSizes(
    num_hidden_layers=8,
    hidden_size=1024,
    intermediate_size=2816,
    num_attention_heads=16,
    num_key_value_heads=4,
    vocab_size=2048,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)
NUM_TOKENS = 96
QUICK_SIZES = replace(
    SIZES, num_hidden_layers=2, hidden_size=128, intermediate_size=256, num_attention_heads=4
)
QUICK_TOKENS = 16
# The only one there is: for `--quick`.
PARTS = {"bitnet": "a ternary model beside a float one"}


@dataclass(frozen=True, slots=True)
class Taken:
    """By one token: processor seconds of the worker, seconds, and joules where there is a meter."""

    cpu_s: float
    seconds: float
    joules: float | None


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Decode in turns."""
    report = Report("energy")
    sizes, num_tokens = (QUICK_SIZES, QUICK_TOKENS) if quick else (SIZES, NUM_TOKENS)
    meter = open_meter()
    with tempfile.TemporaryDirectory() as folder:
        ternary = write_bitnet(Path(folder) / "bitnet", sizes)
        float_model = write_llama(Path(folder) / "float", sizes, with_tokenizer=True)
        with Cluster(ternary, stages=1) as one, Cluster(float_model, stages=1) as other:
            pairs = interleaved_pairs(
                lambda: decode(one, num_tokens, meter),
                lambda: decode(other, num_tokens, meter),
                NUM_PAIRS,
            )
            for name, cluster in (("ternary", one), ("float32", other)):
                stage = cluster.status().stages[0]
                report.add(f"{name}: memory of its weights", stage.total_bytes / MEGABYTE, "MB")
                report.add(f"{name}: at most, while loading", stage.memory_bytes / MEGABYTE, "MB")
    if meter is not None:
        meter.close()
    report_sides(report, pairs)
    return report


def report_sides(report: Report, pairs: Sequence[tuple[Taken, Taken]]) -> None:
    """Both sides' medians, and the medians of the ratios."""
    for name, side in (
        ("ternary", [first for first, _ in pairs]),
        ("float32", [second for _, second in pairs]),
    ):
        report.add(f"{name}: a token takes", 1e3 * median(one.seconds for one in side), "ms")
        cpu_s = median(one.cpu_s for one in side)
        report.add(f"{name}: processor time a token", 1e3 * cpu_s, "CPU-ms")
        joules = [one.joules for one in side if one.joules is not None]
        if len(joules) == len(side):
            report.add(f"{name}: energy a token", median(joules), "J")
    cpu = [(first.cpu_s, second.cpu_s) for first, second in pairs]
    report_ratio(report, "processor time a token, ternary / float32", cpu, None)
    metered = [
        (first.joules, second.joules)
        for first, second in pairs
        if first.joules is not None and second.joules is not None
    ]
    if len(metered) == len(pairs):
        report_ratio(report, "energy a token, ternary / float32", metered, None)
    else:
        note("this machine has no meter: no joules are told")


def decode(cluster: Cluster, num_tokens: int, meter: Meter | None) -> Taken:
    """Generate, and count from the first token on."""
    request = cluster.make_request(PROMPT, max_tokens=num_tokens + 1, cache_prompt=False)
    outputs = stream(cluster, replace(request, stop_tokens=frozenset()))
    worker = psutil.Process(cluster.status().stages[0].pid)
    next(outputs)
    cpu_s, joules, started = _cpu_s(worker), _joules(meter), time.perf_counter()
    count = sum(1 for _ in outputs)
    seconds = time.perf_counter() - started
    assert count == num_tokens
    used, now = _cpu_s(worker) - cpu_s, _joules(meter)
    drawn = now - joules if now is not None and joules is not None else None
    return Taken(used / count, seconds / count, None if drawn is None else drawn / count)


def write_bitnet(path: Path, sizes: LlamaSizes) -> Path:
    """A random ternary checkpoint of this shape, as released ones are: four weights a byte."""
    config: dict[str, Any] = {
        "model_type": "bitnet",
        "num_hidden_layers": sizes.num_hidden_layers,
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "num_attention_heads": sizes.num_attention_heads,
        "num_key_value_heads": sizes.num_key_value_heads,
        "vocab_size": sizes.vocab_size,
        "max_position_embeddings": sizes.max_position_embeddings,
        "tie_word_embeddings": sizes.tie_word_embeddings,
        "rms_norm_eps": 1e-5,
        "eos_token_id": 1,
    }
    path.mkdir(parents=True)
    model = bitnet.Model(bitnet.ModelArgs.from_dict(config))
    shapes = dict(tree_flatten(model.parameters()))
    keys = mx.random.split(mx.random.key(0), len(shapes))
    tensors = {
        name: _random(name, array, key, sizes)
        for (name, array), key in zip(shapes.items(), keys, strict=True)
    }
    mx.save_safetensors(str(path / "model.safetensors"), tensors, {"format": "mlx"})
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(path, sizes.vocab_size, sizes.max_position_embeddings)
    return path


def _random(name: str, like: Any, key: Any, sizes: LlamaSizes) -> Any:
    if like.dtype == mx.uint8:
        digits = mx.random.randint(0, 3, (4, *like.shape), key=key).astype(mx.uint8)
        shifts = mx.array([0, 2, 4, 6], dtype=mx.uint8)[:, None, None]
        return (digits << shifts).sum(0).astype(mx.uint8)
    if name.endswith("weight_scale"):
        return mx.full(like.shape, 1 / sizes.hidden_size**0.5)
    if len(like.shape) == 1:
        return mx.ones(like.shape)
    return 0.02 * mx.random.normal(like.shape, key=key)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _joules(meter: Meter | None) -> float | None:
    return None if meter is None else meter.read().joules
