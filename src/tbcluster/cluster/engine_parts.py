"""The engine of a served model, and what it drives."""

from collections.abc import Callable

from tbcluster.cluster.prefix_folder import open_prefix_disk
from tbcluster.cluster.served_model import ServedModel
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.engine import Engine, Works
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.pace import Pace
from tbcluster.engine.pipeline import Pipeline
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


def new_works(model: ServedModel, pipeline: Pipeline) -> Works:
    """What an engine drives the model's stages with; whoever lets go of it closes its `disk`.

    Raises:
        PrefixFolderError: The folder for saved prefixes cannot be used, or is still in use.
    """
    caches = new_caches(model)
    num_stages = len(model.ranges)
    shape = Shape(
        num_stages,
        max_rows=MAX_LANE_ROWS if model.caches.can_batch else 1,
        max_per_sequence=1 if model.facts.num_visits > 1 else UNLIMITED,
        fixed_chunks=model.caches.fixed_chunks,
    )
    scheduler = Scheduler(shape, caches, Pace(num_stages))
    return Works(pipeline, scheduler, caches, model.limits, open_prefix_disk(model, caches))


def new_engine(
    model: ServedModel, works: Works, on_failure: Callable[[TbclusterError], None]
) -> Engine:
    """An engine for the model's stages; its loop is not running yet."""
    return Engine(works, lambda: model.tokenizer.detokenizer, on_failure)
