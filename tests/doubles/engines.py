"""Engines with settings that tests care about, and no stage workers."""

from collections.abc import Callable
from dataclasses import dataclass

from tbcluster.core import CacheCost
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.detokenizer import Detokenizer
from tbcluster.engine.engine import Engine, Works
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.limits import Limits
from tbcluster.engine.pace import Pace
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.prefix_disk import PrefixDisk
from tbcluster.engine.prefix_index import PrefixIndex
from tbcluster.engine.saved_prefixes import SavedPrefixes
from tbcluster.engine.scheduler import UNLIMITED, Scheduler, Shape
from tests.doubles.text_double import CharacterDetokenizer

VOCAB_SIZE = 128


@dataclass(frozen=True)
class Settings:
    """What an engine is made with; a cache takes one byte per token on its only stage's account.

    Attributes:
        num_stages: As far as the scheduler knows.
    """

    num_stages: int = 2
    max_rows: int = 256
    max_per_sequence: int = UNLIMITED
    chunk_tokens: int = 4
    kv_tokens: int | None = None
    max_trimmable_tokens: int | None = None
    max_running: int = 64
    max_waiting: int = 1024


def new_caches(settings: Settings) -> CacheBook:
    budget = settings.kv_tokens if settings.kv_tokens is not None else 1 << 40
    memory = KvMemory([[CacheCost(0, 1)]], [budget])
    return CacheBook(memory, PrefixIndex(settings.max_trimmable_tokens))


def new_scheduler(settings: Settings, caches: CacheBook) -> Scheduler:
    shape = Shape(settings.num_stages, settings.max_rows, settings.max_per_sequence)
    return Scheduler(shape, caches, Pace(settings.num_stages, settings.chunk_tokens))


def new_works(
    pipeline: Pipeline,
    settings: Settings,
    caches: CacheBook,
    saved: SavedPrefixes | None = None,
) -> Works:
    limits = Limits(
        VOCAB_SIZE, None, settings.max_running, settings.max_waiting, settings.kv_tokens
    )
    disk = PrefixDisk(caches, saved) if saved is not None else None
    return Works(pipeline, new_scheduler(settings, caches), caches, limits, disk)


def new_engine(
    pipeline: Pipeline,
    settings: Settings,
    caches: CacheBook,
    new_detokenizer: Callable[[], Detokenizer] = CharacterDetokenizer,
    saved: SavedPrefixes | None = None,
) -> Engine:
    return Engine(new_works(pipeline, settings, caches, saved), new_detokenizer)
