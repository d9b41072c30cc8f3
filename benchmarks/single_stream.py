"""One stream of tokens: how much of mlx-lm's speed is left when the layers are cut into stages.

Both run the same random llama checkpoint on this machine, each in its own processes, in turns.
One token takes long enough there (tens of milliseconds on a small CPU) that a hop is a small part.

Where the weights of a process happen to lie in physical memory makes it up to a tenth faster or
slower for as long as it lives, so both sides are started anew for every few pairs.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.decode import Decode, decode_of
from benchmarks.harness import Bar, Report, interleaved_pairs, median_ratio, note, note_ratios
from benchmarks.hop_cost import measure_hops
from benchmarks.unsharded import Unsharded
from tbcluster import Cluster, stream_generate
from tbcluster.demo import MODEL_PATH
from tests.doubles.checkpoints import LlamaSizes, write_llama

# The shape matters: building a layer's graph takes Python as long for a narrow layer as for a wide
# one, and mlx-lm does it while it computes. Layers worth cutting are wider than either of these.
WIDE = LlamaSizes(
    num_hidden_layers=4,
    hidden_size=896,
    intermediate_size=2432,
    num_attention_heads=14,
    num_key_value_heads=14,
    vocab_size=2048,
)
NARROW = LlamaSizes(
    num_hidden_layers=8,
    hidden_size=512,
    intermediate_size=1408,
    num_attention_heads=8,
    num_key_value_heads=8,
    vocab_size=4096,
)
Pairs = list[tuple[float, float]]
Bars = dict[int, Bar | None]

PROMPT = list(range(300, 316))
NUM_TOKENS = 25
NUM_STARTS = 6
PAIRS_PER_START = 2
BAR = Bar(">=", 0.90, "x")
# Shape -> its sizes, and the bar for each number of stages that is measured.
SHAPES: dict[str, tuple[LlamaSizes, Bars]] = {
    "4 x 896": (WIDE, {1: None, 2: BAR, 4: None}),
    "8 x 512": (NARROW, {2: BAR}),
}
NUM_HOP_STAGES = 2


def run() -> Report:
    """Measure decode speeds, then hops."""
    report = Report("single-stream")
    for shape, (sizes, bars) in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write_llama(Path(folder) / "model", sizes, with_tokenizer=True)
            _measure_speeds(shape, path, bars, report)
    _measure_hops(report)
    return report


def _measure_speeds(shape: str, model_path: Path, bars: Bars, report: Report) -> None:
    pairs: dict[int, Pairs] = {num_stages: [] for num_stages in bars}
    for start in range(1, NUM_STARTS + 1):
        for num_stages in bars:
            note(f"{shape}: start {start} of {NUM_STARTS}, {_through(num_stages)}")
            pairs[num_stages] += _pairs_of_one_start(model_path, num_stages)
    theirs = statistics.median(pair[0] for some in pairs.values() for pair in some)
    report.add(f"{shape}: mlx-lm, time per token", theirs, "ms")
    for num_stages, bar in bars.items():
        _report_speed(report, f"{shape}: ", num_stages, pairs[num_stages], bar)


def _report_speed(
    report: Report, shape: str, num_stages: int, pairs: Pairs, bar: Bar | None
) -> None:
    through = _through(num_stages)
    ours = statistics.median(ms for _, ms in pairs)
    report.add(f"{shape}tbcluster {through}, time per token", ours, "ms")
    report.add(f"{shape}speed {through} / mlx-lm", median_ratio(pairs), "x", bar)
    note_ratios(f"{shape}speed {through} / mlx-lm", pairs)


def _pairs_of_one_start(model_path: Path, num_stages: int) -> Pairs:
    """Milliseconds per token of mlx-lm and of tbcluster, whose tokens must be the same."""
    with Unsharded(model_path) as mlx_lm, Cluster(model_path, stages=num_stages) as cluster:
        decodes = interleaved_pairs(
            lambda: mlx_lm.decode(PROMPT, NUM_TOKENS), lambda: _decode(cluster), PAIRS_PER_START
        )
    for theirs, ours in decodes:
        assert len(theirs.tokens) == NUM_TOKENS, "the random model ended its answer early"
        assert ours.tokens == theirs.tokens, "greedy tokens differ from mlx-lm's"
    return [(theirs.ms_per_token, ours.ms_per_token) for theirs, ours in decodes]


def _decode(cluster: Cluster) -> Decode:
    def timed() -> Iterator[tuple[int, float]]:
        responses = stream_generate(cluster, cluster.tokenizer, PROMPT, max_tokens=NUM_TOKENS)
        for response in responses:
            yield response.token, time.perf_counter()

    return decode_of(timed())


def _measure_hops(report: Report) -> None:
    note(f"hops: the bundled model {_through(NUM_HOP_STAGES)}")
    pairs = measure_hops(MODEL_PATH, NUM_HOP_STAGES)
    note_ratios("hop / pyzmq alone", pairs)
    ours, floor = (statistics.median(side) for side in zip(*pairs, strict=True))
    where = f"one hop {_through(NUM_HOP_STAGES)}"
    report.add(f"{where}, less compute", ours, "us")
    report.add(f"{where}, pyzmq alone", floor, "us")
    report.add(f"{where} / pyzmq alone", median_ratio(pairs), "x")


def _through(num_stages: int) -> str:
    return f"through {num_stages} stage{'s' if num_stages > 1 else ''}"
