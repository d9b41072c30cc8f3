"""The engine of a served model and its account of the KV caches."""

from collections.abc import Callable

from tbcluster.cluster.served_model import ServedModel
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.engine import Engine
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.pace import Pace
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.prefix_disk import PrefixDisk
from tbcluster.engine.prefix_index import PrefixIndex
from tbcluster.engine.scheduler import UNLIMITED, Scheduler, Shape
from tbcluster.errors import TbclusterError

MAX_LANE_ROWS = 256


def new_caches(model: ServedModel) -> CacheBook:
    """The account of an engine that has run nothing yet."""
    memory = KvMemory(model.caches.costs, model.kv_budgets)
    return CacheBook(
        memory,
        PrefixIndex(model.caches.max_trimmable_tokens),
        # Where chunks matter, a known prefix ends where no chunk would.
        reuses_prefixes=model.kv.prefix_cache and not model.caches.fixed_chunks,
    )


def new_engine(
    model: ServedModel,
    pipeline: Pipeline,
    caches: CacheBook,
    disk: PrefixDisk | None,
    on_failure: Callable[[TbclusterError], None],
) -> Engine:
    """An engine for the model's stages; its loop is not running yet."""
    num_stages = len(model.ranges)
    shape = Shape(
        num_stages,
        max_rows=MAX_LANE_ROWS if model.caches.can_batch else 1,
        max_per_sequence=1 if model.facts.num_visits > 1 else UNLIMITED,
        fixed_chunks=model.caches.fixed_chunks,
    )
    return Engine(
        pipeline,
        Scheduler(shape, caches, Pace(num_stages)),
        caches,
        new_detokenizer=lambda: model.tokenizer.detokenizer,
        limits=model.limits,
        disk=disk,
        on_failure=on_failure,
    )
