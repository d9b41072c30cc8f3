"""An engine whose stages are lost and come back, and what its requests are told of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tbcluster.core import (
    CacheCost,
    Output,
    Pooling,
    Request,
    Sample,
    TokenId,
)
from tbcluster.engine.caches import CacheBook
from tbcluster.engine.engine import Engine, Works
from tbcluster.engine.kv_memory import KvMemory
from tbcluster.engine.limits import Limits
from tbcluster.engine.pace import Pace
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.prefix_index import PrefixIndex
from tbcluster.engine.scheduler import UNLIMITED, Scheduler, Shape
from tbcluster.errors import (
    TbclusterError,
)
from tests.doubles.engines import VOCAB_SIZE
from tests.doubles.stage_double import StageDouble, continuation, embedding_of, some_letter
from tests.doubles.text_double import CharacterDetokenizer

MAX_TURNS = 3000
CHUNK_TOKENS = 4
NUM_TOKENS = 8
MUCH = 1 << 40
SYSTEM = tuple(map(ord, "You answer briefly, kindly, and in the language of the question. " * 2))
PROMPTS = [tuple(map(ord, text)) for text in ("a", "to", "hello world, how are you", "xyzzy")]


class SeededStage(StageDouble):
    """Its sampled tokens depend on seed and position, too."""

    def _pick(self, row: Sequence[TokenId], sample: Sample) -> TokenId:
        if sample.params.temperature == 0:
            return super()._pick(row, sample)
        return some_letter((*row, sample.params.seed, sample.position))


def undisturbed(request: Request) -> list[TokenId]:
    """The tokens of a request on stages that nothing happens to."""
    if request.sampling.temperature == 0:
        return continuation(request.prompt, request.max_tokens)
    tokens = list(request.prompt)
    for _ in range(request.max_tokens):
        tokens.append(some_letter((*tokens, request.sampling.seed, len(tokens))))
    return tokens[len(request.prompt) :]


class Bench:
    """An engine, the stages that answer it, on a clock that goes on with every turn, and what each
    request was told.

    Attributes:
        lost: Steps that were missed in this epoch, at which the engine was paused.
    """

    def __init__(self, *, is_open: bool = True, **works: Any) -> None:
        self.now = 0.0
        self.epoch = 1
        self.stage = SeededStage()
        self.lost: list[int] = []
        self.works = self.new_works(**works)
        self.engine = Engine(self.works, CharacterDetokenizer, clock=lambda: self.now)
        self.asked: dict[str, tuple[Request, list[Output | TbclusterError]]] = {}
        if is_open:
            self.engine.open()

    def new_works(
        self,
        num_stages: int = 2,
        kv_tokens: int | None = None,
        max_running: int = 64,
        max_rows: int = 256,
        max_per_sequence: int = UNLIMITED,
        max_trimmable_tokens: int | None = None,
    ) -> Works:
        """For the stages that are there now; a cache takes a byte per token on each."""
        budgets = [MUCH if kv_tokens is None else kv_tokens] * num_stages
        memory = KvMemory([[CacheCost(0, 1)]] * num_stages, budgets)
        caches = CacheBook(memory, PrefixIndex(max_trimmable_tokens))
        shape = Shape(num_stages, max_rows, max_per_sequence)
        pipeline = Pipeline(
            self.stage.inbound,
            self.stage.results,
            self.epoch,
            clock=lambda: self.now,
            on_gap=self._lose,
        )
        capacity = None if kv_tokens is None else memory.capacity_tokens()
        return Works(
            pipeline,
            Scheduler(shape, caches, Pace(num_stages, CHUNK_TOKENS)),
            caches,
            Limits(VOCAB_SIZE, None, max_running, 64, capacity, "as small as this"),
        )

    def submit(
        self, prompt: tuple[TokenId, ...], *, while_held: bool = False, **fields: Any
    ) -> list[Output | TbclusterError]:
        request = Request(f"{len(self.asked)}", prompt, **{"max_tokens": NUM_TOKENS, **fields})
        told: list[Output | TbclusterError] = []
        self.engine.submit(request, told.append, while_held=while_held)
        self.asked[request.request_id] = request, told
        return told

    def begin_epoch(self, **works: Any) -> None:
        """Mend the stages, or with `works` begin with others."""
        self.epoch += 1
        self.lost.clear()
        if works:
            self.stage = SeededStage()
            self.works = self.new_works(**works)
        self.engine.begin_epoch(self.epoch, self.works if works else None)

    def turns(self, number: int = 1, most_steps: int | None = None) -> None:
        for _ in range(number):
            self.now += 0.1
            self.engine.step(0)
            self.stage.work(most_steps)

    def finish(self) -> None:
        """Run until nothing is open, and some turns more for what should not come. Whoever misses a
        step mends the stages."""
        for _ in range(MAX_TURNS):
            if self.engine.num_open == 0:
                break
            if self.lost:
                self.begin_epoch()
                self.engine.open()
            self.turns()
        assert self.engine.num_open == 0
        self.turns(20)

    def caches_left(self) -> set[int]:
        """Those that are no known prefixes."""
        known = {entry.cache_id for entry in self.works.caches.prefixes}
        return set(self.stage.contexts) - known

    def _lose(self, step_id: int) -> None:
        self.lost.append(step_id)
        self.engine.pause()


def assert_whole(request: Request, told: list[Output | TbclusterError]) -> None:
    """Each token was told once, in order, and they are what they would have been."""
    assert_right_so_far(request, told)
    last = told[-1]
    assert isinstance(last, Output)
    assert last.finish_reason is not None
    assert request.pooling is not None or len(told) == request.max_tokens


def assert_right_so_far(request: Request, told: list[Output | TbclusterError]) -> None:
    outputs = [item for item in told if isinstance(item, Output)]
    assert len(outputs) == len(told), told
    if request.pooling is not None:
        expected = embedding_of(request.prompt, request.pooling)
        if request.pooling is Pooling.MEAN:
            expected = expected / np.float32(len(request.prompt))
        assert [output.embedding for output in outputs] in ([], [tuple(expected.tolist())])
        return
    tokens = [output.sampled.token for output in outputs]
    assert tokens == undisturbed(request)[: len(tokens)]
    assert "".join(output.text for output in outputs) == "".join(map(chr, tokens))
    assert [o.num_generated_tokens for o in outputs] == list(range(1, len(outputs) + 1))
    assert all(output.finish_reason is None for output in outputs[:-1])


def assert_all_whole(bench: Bench) -> None:
    for request, told in bench.asked.values():
        assert_whole(request, told)
    assert not bench.stage.has_failed
    assert bench.caches_left() == set()
    assert not bench.stage.rules


def examined(bench: Bench, tokens: tuple[TokenId, ...] = PROMPTS[2]) -> list[Any]:
    results: list[Any] = []
    bench.engine.examine(tokens, results.append)
    return results
