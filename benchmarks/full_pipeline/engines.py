"""An engine of our own, where no model or no ordinary stage is behind it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tbcluster.core import CacheCost
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.detokenizer import Detokenizer
from tbcluster.engine.engine import Engine, Works
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.limits import Limits
from tbcluster.engine.pace import Pace
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.prefix_index import PrefixIndex
from tbcluster.engine.scheduler import Scheduler, Shape

CACHE_COST = CacheCost(fixed_bytes=0, bytes_per_token=1024)
KV_BUDGET_BYTES = 1 << 40


def new_engine(
    pipeline: Pipeline,
    num_stages: int,
    vocab_size: int,
    new_detokenizer: Callable[[], Detokenizer],
) -> Engine:
    """Put together as `Cluster` does it, with KV memory for everything; open for requests."""
    memory = KvMemory([[CACHE_COST]] * num_stages, [KV_BUDGET_BYTES] * num_stages)
    caches = CacheBook(memory, PrefixIndex(None))
    scheduler = Scheduler(Shape(num_stages), caches, Pace(num_stages))
    limits = Limits(vocab_size, context_length=None)
    engine = Engine(Works(pipeline, scheduler, caches, limits), new_detokenizer)
    engine.open()
    return engine


@contextmanager
def running_engine(engine: Engine) -> Iterator[Engine]:
    """Its loop in a thread, ended afterwards."""
    thread = threading.Thread(target=engine.run, daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        engine.stop()
        thread.join()
