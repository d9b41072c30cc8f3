"""How fast this machine computes: measured with MLX, in a few seconds."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.models.cache import KVCache

from tbcluster.errors import StageError
from tbcluster.hardware.cgroups import cpu_limit
from tbcluster.model.device import CPU, Device
from tbcluster.model.slicing import StageModel
from tbcluster.model.tracer import trace

ROWS = (1, 2, 4, 8, 16, 64, 512, 2048)
NUM_SAMPLES = 3
SAMPLE_S = 0.05
# Handed to MLX together: what keeps it busy for about so long.
BATCH_S = 0.02
# So many rows that one matrix takes longer than this are not measured.
MAX_MATRIX_S = 0.25
# More than caches hold: of an Ultra all, of a CPU core those that are its own.
GPU_BYTES, CPU_BYTES = 512 << 20, 56 << 20
# As wide as layers are, where that is not said, and the widest that are measured.
GPU_WIDTH, CPU_WIDTH = 4096, 1024
MAX_GPU_WIDTH, MAX_CPU_WIDTH = 8192, 2048
# Groups of quantized weights divide it.
WIDTH_STEP = 128
# A layer's matrices, (out, in) in widths: those of attention, and a feed-forward part's both ways.
SHAPES = ((1, 1), (1, 1), (3, 1), (1, 3))
# Of the KV cache that is read: heads, queries for each, numbers of a head; few and many tokens.
NUM_HEADS, NUM_QUERIES, HEAD_SIZE = 8, 4, 128
FEW_TOKENS, MANY_TOKENS = 256, 4096
TOY_WIDTH = 64
_AFFINE = re.compile(r"([2-8])-bit/(32|64|128)")
_WITH_WIDTH = re.compile(r"(?P<kind>.*\S) (?P<width>\d{1,6})")
# (bits, weights that share a scale), by MLX's name of the mode.
_MODES = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
_TYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights, and how an array (rows, `width`) is multiplied with them."""

    width: int
    arrays: tuple[mx.array, ...]
    multiply: Callable[[mx.array], mx.array]

    @property
    def nbytes(self) -> int:
        """All of its arrays together."""
        return sum(array.nbytes for array in self.arrays)


def byte_rates(kind: str, device: Device) -> tuple[tuple[int, float], ...]:
    """(rows, seconds for each byte of weights), ascending; see `planner.nodes.NodeSpeed`.

    Args:
        kind: See `planner.profile.ModelProfile.speed_kind`; the width may be missing. Where the
            device computes in one type alone, floating kinds are that one.

    Raises:
        StageError: There is no such kind.
    """
    with_width = _WITH_WIDTH.fullmatch(kind)
    kind, width = (with_width["kind"], int(with_width["width"])) if with_width else (kind, None)
    dtype = device.compute_dtype or _TYPES.get(kind, mx.bfloat16)
    matrices = list(_matrices(kind, width, device, dtype))
    rates: list[tuple[int, float]] = []
    clock = clock_of(device)
    byte_s = _once(matrices, dtype, clock)
    for rows in ROWS:
        if rates:
            # In proportion to the rows, at worst.
            byte_s = rates[-1][1] * rows / rates[-1][0]
        if rates and byte_s * matrices[0].nbytes > MAX_MATRIX_S:
            break
        rates.append((rows, _rate(matrices, rows, dtype, byte_s, clock)))
    return tuple(rates)


def cache_rate(device: Device) -> float:
    """Seconds for each byte of KV caches that attention reads: what a long one takes longer than a
    short one."""
    dtype = device.compute_dtype or mx.bfloat16
    clock = clock_of(device)
    times = [mean_s(_attention(tokens, dtype), clock) for tokens in (FEW_TOKENS, MANY_TOKENS)]
    num_bytes = 2 * NUM_HEADS * HEAD_SIZE * dtype.size * (MANY_TOKENS - FEW_TOKENS)
    return max(0.0, times[1] - times[0]) / num_bytes


def toy_stage(num_layers: int, device: Device) -> tuple[StageModel, int]:
    """The first layers of a small llama with random weights, and how many bytes each of them has.
    What they take is hardly their weights'."""
    sizes = llama.ModelArgs(
        model_type="llama",
        hidden_size=TOY_WIDTH,
        num_hidden_layers=num_layers + 1,
        intermediate_size=2 * TOY_WIDTH,
        num_attention_heads=4,
        num_key_value_heads=4,
        rms_norm_eps=1e-5,
        vocab_size=TOY_WIDTH,
    )
    model = llama.Model(sizes)
    model.set_dtype(device.compute_dtype or mx.bfloat16)
    mx.eval(model.parameters())
    layer_bytes = sum(array.nbytes for _, array in tree_flatten(model.layers[0].parameters()))
    return StageModel(model, trace(model), 0, num_layers), layer_bytes


def clock_of(device: Device) -> Clock:
    """Seconds as a stage on this device needs them. On a CPU, where MLX computes in one thread, it
    is the process's own time: what else the machine does meanwhile is not in it, and how it is
    rationed is known."""
    if device.backend != CPU:
        return time.perf_counter
    share = min(1.0, cpu_limit() or 1.0)
    return lambda: time.process_time() / share


def mean_s(run: Callable[[], None], clock: Clock) -> float:
    """Seconds that one call takes, after the first: the shortest of some means, since others only
    ever make them longer."""
    run()
    return min(_mean_of_sample(run, clock) for _ in range(NUM_SAMPLES))


def _mean_of_sample(run: Callable[[], None], clock: Clock) -> float:
    started, count, elapsed_s = clock(), 0, 0.0
    while elapsed_s < SAMPLE_S:
        run()
        count += 1
        elapsed_s = clock() - started
    return elapsed_s / count


def _once(matrices: list[Matrix], dtype: mx.Dtype, clock: Clock) -> float:
    """Seconds for each byte, roughly; MLX's kernels are there then."""
    _multiply(matrices[:1], 1, dtype)
    started = clock()
    _multiply(matrices, 1, dtype)
    return (clock() - started) / sum(matrix.nbytes for matrix in matrices)


def _rate(matrices: list[Matrix], rows: int, dtype: mx.Dtype, byte_s: float, clock: Clock) -> float:
    """Seconds for each byte, which are about `byte_s`. One matrix comes after the other: none is
    in a cache still when its turn comes again."""
    count = min(len(matrices), max(1, round(BATCH_S / byte_s / matrices[0].nbytes)))
    turns = cycle(matrices)

    def sample() -> float:
        num_bytes, started, elapsed_s = 0, clock(), 0.0
        while elapsed_s < SAMPLE_S:
            batch = list(islice(turns, count))
            _multiply(batch, rows, dtype)
            num_bytes += sum(matrix.nbytes for matrix in batch)
            elapsed_s = clock() - started
        return elapsed_s / num_bytes

    return min(sample() for _ in range(NUM_SAMPLES))


def _multiply(batch: list[Matrix], rows: int, dtype: mx.Dtype) -> None:
    inputs = {width: mx.ones((rows, width), dtype) for width in {one.width for one in batch}}
    mx.eval([matrix.multiply(inputs[matrix.width]) for matrix in batch])


def _matrices(kind: str, width: int | None, device: Device, dtype: mx.Dtype) -> Iterator[Matrix]:
    """Of this kind, more of them than caches hold."""
    is_cpu = device.backend == CPU
    usual, most = (CPU_WIDTH, MAX_CPU_WIDTH) if is_cpu else (GPU_WIDTH, MAX_GPU_WIDTH)
    step = 1 if kind in _TYPES else WIDTH_STEP
    width = -(-min(width or usual, most) // step) * step
    wanted = CPU_BYTES if is_cpu else GPU_BYTES
    for outputs, inputs in cycle(SHAPES):
        if wanted <= 0:
            return
        matrix = _matrix(kind, outputs * width, inputs * width, dtype)
        # Written now: what is still to be computed would be so while it is timed.
        mx.eval(matrix.arrays)
        wanted -= matrix.nbytes
        yield matrix


def _matrix(kind: str, outputs: int, inputs: int, dtype: mx.Dtype) -> Matrix:
    affine = _AFFINE.fullmatch(kind)
    if affine is not None:
        return _affine(outputs, inputs, dtype, bits=int(affine[1]), group_size=int(affine[2]))
    if kind in _MODES:
        return _scaled(outputs, inputs, kind)
    if kind not in _TYPES:
        known = ", ".join((*_TYPES, *_MODES, "4-bit/64"))
        raise StageError(f"no speed can be measured with weights of kind {kind!r}: known: {known}")
    weights = mx.random.uniform(shape=(outputs, inputs)).astype(dtype)
    return Matrix(inputs, (weights,), lambda numbers: numbers @ weights.T)


def _affine(outputs: int, inputs: int, dtype: mx.Dtype, *, bits: int, group_size: int) -> Matrix:
    weights = _words(outputs, inputs * bits // 32)
    groups = (outputs, inputs // group_size)
    scales, biases = mx.ones(groups, dtype), mx.zeros(groups, dtype)
    return Matrix(
        inputs,
        (weights, scales, biases),
        lambda numbers: mx.quantized_matmul(
            numbers, weights, scales, biases, group_size=group_size, bits=bits
        ),
    )


def _scaled(outputs: int, inputs: int, mode: str) -> Matrix:
    bits, group_size = _MODES[mode]
    weights = _words(outputs, inputs * bits // 32)
    # Of 1.0 in any of the modes' formats, or near it.
    scales = mx.full((outputs, inputs // group_size), 127 if mode != "nvfp4" else 56, mx.uint8)
    return Matrix(
        inputs,
        (weights, scales),
        lambda numbers: mx.quantized_matmul(
            numbers, weights, scales, group_size=group_size, bits=bits, mode=mode
        ),
    )


def _words(rows: int, columns: int) -> mx.array:
    return mx.random.uniform(shape=(rows, columns)).view(mx.uint32)


def _attention(num_tokens: int, dtype: mx.Dtype) -> Callable[[], None]:
    """One step of a layer's attention over a cache of so many tokens, which stays as it is."""
    cache = KVCache()
    shape = (1, NUM_HEADS, num_tokens, HEAD_SIZE)
    mx.eval(cache.update_and_fetch(mx.zeros(shape, dtype), mx.zeros(shape, dtype)))
    queries = mx.zeros((1, NUM_HEADS * NUM_QUERIES, 1, HEAD_SIZE), dtype)
    token = mx.zeros((1, NUM_HEADS, 1, HEAD_SIZE), dtype)

    def step() -> None:
        cache.trim(1)
        keys, values = cache.update_and_fetch(token, token)
        mx.eval(
            mx.fast.scaled_dot_product_attention(
                queries, keys, values, scale=HEAD_SIZE**-0.5, mask=None
            )
        )

    return step
