"""The three sides that are measured in turns: one mlx-lm, two of them side by side, tbcluster."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.unsharded import SideBySide, Unsharded
from tbcluster import Cluster
from tests.doubles.checkpoints import LlamaSizes, write_llama

NUM_STAGES = 2


@dataclass(frozen=True, slots=True)
class Sides:
    """All with the same model; the one mlx-lm is the first of those side by side."""

    one: Unsharded
    side_by_side: SideBySide
    cluster: Cluster


@contextmanager
def started_sides(path: Path) -> Iterator[Sides]:
    """Start all processes, and end them."""
    with ExitStack() as stack:
        one, other = (stack.enter_context(Unsharded(path)) for _ in range(2))
        cluster = stack.enter_context(Cluster(path, stages=NUM_STAGES))
        yield Sides(one, SideBySide(one, other), cluster)


@contextmanager
def random_model(sizes: LlamaSizes) -> Iterator[Path]:
    """A checkpoint of these sizes, removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        yield write_llama(Path(folder) / "model", sizes, with_tokenizer=True)
