"""The token loop over in-memory channels, with a scripted stage at the other end."""

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tbcluster.core import FinishReason, Output, Request, TokenId
from tbcluster.engine.detokenizer import Detokenizer
from tbcluster.engine.pipeline import Pipeline
from tbcluster.errors import (
    ClusterClosedError,
    QueueFullError,
    RequestError,
    StageError,
    TbclusterError,
)
from tbcluster.wire.operations import CacheOperation, NewCache
from tests.doubles.engines import Settings, new_caches, new_engine, new_works
from tests.doubles.stage_double import NextToken, StageDouble, continuation, some_letter
from tests.doubles.text_double import CharacterDetokenizer
from tests.doubles.waiting import wait_until

DEADLINE_S = 30.0
MAX_TURNS = 500
NUM_STAGES = Settings().num_stages
UNLIMITED = 1 << 30
PROMPTS = [tuple(map(ord, text)) for text in ("a", "to", "hello world, how are you", "xyzzy")]


class Recorder:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Output | TbclusterError] = []

    def __call__(self, item: Output | TbclusterError) -> None:
        self.told.append(item)

    @property
    def outputs(self) -> list[Output]:
        return [item for item in self.told if isinstance(item, Output)]

    @property
    def errors(self) -> list[TbclusterError]:
        return [item for item in self.told if isinstance(item, TbclusterError)]

    @property
    def tokens(self) -> list[TokenId]:
        return [output.sampled.token for output in self.outputs]

    @property
    def text(self) -> str:
        return "".join(output.text for output in self.outputs)

    @property
    def num_endings(self) -> int:
        return len(self.errors) + sum(o.finish_reason is not None for o in self.outputs)

    def finish(self) -> FinishReason | None:
        """The reason of the last output, which must be the only one and the last word."""
        assert self.num_endings == 1
        last = self.told[-1]
        assert isinstance(last, Output), last
        return last.finish_reason


class Bench:
    """An engine, open for requests, and the stage that answers it."""

    def __init__(
        self,
        next_token: NextToken = some_letter,
        *,
        new_detokenizer: Callable[[], Detokenizer] = CharacterDetokenizer,
        max_running: int = 64,
        max_waiting: int = 1024,
        is_open: bool = True,
    ) -> None:
        self.stage = StageDouble(next_token)
        self.pipeline = Pipeline(self.stage.inbound, self.stage.results)
        settings = Settings(max_running=max_running, max_waiting=max_waiting)
        self.caches = new_caches(settings)
        self.engine = new_engine(self.pipeline, settings, self.caches, new_detokenizer)
        self._num_requests = 0
        if is_open:
            self.engine.open()

    def submit(
        self, prompt: tuple[TokenId, ...] | str = "hi", *, while_held: bool = False, **fields: Any
    ) -> Recorder:
        recorder = Recorder()
        tokens = tuple(map(ord, prompt)) if isinstance(prompt, str) else prompt
        fields = {"request_id": str(self._num_requests), "max_tokens": 5, **fields}
        self._num_requests += 1
        request = Request(prompt=tokens, **fields)
        self.engine.submit(request, recorder, while_held=while_held)
        return recorder

    def turn(self) -> None:
        self.engine.step(0)
        self.stage.work()

    def turns(self, number: int) -> None:
        for _ in range(number):
            self.turn()

    def run_until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(MAX_TURNS):
            if is_so():
                return
            self.turn()
        raise AssertionError(f"not so after {MAX_TURNS} turns")

    def finish(self) -> None:
        """Run until nothing is open, and some turns more for what should not come."""
        self.run_until(lambda: self.engine.num_open == 0)
        self.turns(20)

    def operations(self) -> list[CacheOperation]:
        return [operation for step in self.stage.steps for operation in step.operations]

    def caches_left(self) -> set[int]:
        """Those that are no known prefixes."""
        return set(self.stage.contexts) - {entry.cache_id for entry in self.caches.prefixes}


def spell(text: str, num_prompt: int) -> NextToken:
    """An answer that says `text`, whatever the prompt."""
    return lambda context: ord(text[len(context) - num_prompt])


# Answers


def test_several_requests_at_once_each_get_their_own_answer() -> None:
    bench = Bench()
    recorders = [bench.submit(prompt, max_tokens=7) for prompt in PROMPTS]
    bench.finish()
    for prompt, recorder in zip(PROMPTS, recorders, strict=True):
        assert recorder.tokens == continuation(prompt, 7)
        assert recorder.text == "".join(map(chr, recorder.tokens))
        assert recorder.finish() is FinishReason.LENGTH
        assert [o.num_generated_tokens for o in recorder.outputs] == list(range(1, 8))
        assert {o.num_prompt_tokens for o in recorder.outputs} == {len(prompt)}
    assert bench.caches_left() == set()


def test_the_pipeline_is_kept_full_and_never_overfull() -> None:
    bench = Bench()
    for prompt in PROMPTS:
        bench.submit(prompt, max_tokens=40)
    bench.turns(10)
    for _ in range(8):
        bench.engine.step(0)  # takes the results
        bench.engine.step(0)  # sends what follows them
        assert NUM_STAGES <= bench.stage.work() <= 2 * (NUM_STAGES + 1)


def test_one_request_alone_never_runs_ahead_of_its_tokens() -> None:
    bench = Bench()
    recorder = bench.submit("hi", max_tokens=3)
    bench.finish()
    micro_batches = [step.micro_batch for step in bench.stage.steps if step.micro_batch]
    assert [batch.tokens for batch in micro_batches] == [
        (ord("h"),),
        (ord("i"),),
        *[(token,) for token in recorder.tokens[:2]],
    ]


def test_a_stop_token_ends_the_answer_without_its_text() -> None:
    bench = Bench(spell("good$bye", 2))
    recorder = bench.submit(max_tokens=50, stop_tokens=frozenset({ord("$")}))
    bench.finish()
    assert recorder.text == "good"
    assert recorder.tokens == [*map(ord, "good$")]
    assert recorder.finish() is FinishReason.STOP
    assert bench.caches_left() == set()


def test_a_stop_text_across_tokens_ends_the_answer() -> None:
    bench = Bench(spell("one <e two <end> three", 2))
    recorder = bench.submit(max_tokens=50, stop=("<end>", "never"))
    other = bench.submit(max_tokens=20)
    bench.finish()
    assert recorder.text == "one <e two "
    assert recorder.finish() is FinishReason.STOP
    # No text that could have become the stop text was shown before its time.
    assert all("<end>".startswith(o.text) is (o.text == "") for o in recorder.outputs)
    assert other.text == "one <e two <end> thr"[:20]
    assert bench.caches_left() == set()


def test_a_stop_text_with_the_last_token_counts_as_stop() -> None:
    bench = Bench(spell("abcd", 2))
    recorder = bench.submit(max_tokens=4, stop=("cd",))
    bench.finish()
    assert recorder.text == "ab"
    assert recorder.finish() is FinishReason.STOP
    assert bench.caches_left() == set()


def test_held_back_text_comes_with_the_last_token() -> None:
    bench = Bench(spell("ab<en", 2))
    recorder = bench.submit(max_tokens=5, stop=("<end>",))
    bench.finish()
    assert [output.text for output in recorder.outputs] == ["a", "b", "", "", "<en"]
    assert recorder.finish() is FinishReason.LENGTH


def test_requests_out_of_range_are_refused_before_they_are_queued() -> None:
    bench = Bench()
    with pytest.raises(RequestError, match="token id 128"):
        bench.submit((128,))
    assert bench.engine.num_open == 0


# Errors


def test_an_error_ends_only_its_request() -> None:
    bench = Bench()
    bench.stage.fails = lambda row: row[:4] == [*map(ord, "hell")]
    before, broken, after = (bench.submit(prompt) for prompt in PROMPTS[1:4])
    bench.finish()
    assert [type(item) for item in broken.told] == [StageError]
    assert "as it was told" in str(broken.told[0])
    for prompt, recorder in ((PROMPTS[1], before), (PROMPTS[3], after)):
        assert recorder.tokens == continuation(prompt, 5)
        assert recorder.finish() is FinishReason.LENGTH
    assert bench.caches_left() == set()


def test_an_error_in_the_middle_is_the_last_word() -> None:
    bench = Bench()
    recorder = bench.submit("hi", max_tokens=50)
    bench.run_until(lambda: len(recorder.told) == 3)
    bench.stage.fails = lambda _: True
    bench.finish()
    assert recorder.num_endings == 1
    assert isinstance(recorder.told[-1], StageError)
    assert recorder.tokens == continuation(tuple(map(ord, "hi")), len(recorder.tokens))


def test_garbage_from_the_last_stage_changes_nothing() -> None:
    bench = Bench()
    recorder = bench.submit()
    bench.turns(2)
    bench.stage.results.send([b"garbage"])
    bench.finish()
    assert recorder.tokens == continuation(tuple(map(ord, "hi")), 5)
    assert bench.pipeline.num_dropped_messages == 1


# Cancelling


@pytest.mark.parametrize("num_turns", range(16))
def test_cancelling_at_any_moment(num_turns: int) -> None:
    bench = Bench(max_running=2)
    cancelled = bench.submit(PROMPTS[2], request_id="x", max_tokens=6)
    other = bench.submit(PROMPTS[3], max_tokens=6)
    waiting = bench.submit(PROMPTS[1], max_tokens=2)
    bench.turns(num_turns)
    told = len(cancelled.told)
    bench.engine.cancel("x")
    bench.engine.cancel("x")
    bench.engine.cancel("unknown")
    bench.finish()
    assert len(cancelled.told) == told
    assert cancelled.tokens == continuation(PROMPTS[2], told)
    assert other.tokens == continuation(PROMPTS[3], 6)
    assert waiting.tokens == continuation(PROMPTS[1], 2)
    assert bench.caches_left() == set()


def test_cancelling_a_waiting_request_frees_its_place() -> None:
    bench = Bench(max_running=1, max_waiting=1)
    running = bench.submit(max_tokens=30)
    waiting = bench.submit(request_id="x")
    bench.turns(2)
    bench.engine.cancel("x")
    bench.turns(2)
    assert bench.engine.num_open == 1
    bench.submit()
    bench.finish()
    assert waiting.told == []
    assert running.finish() is FinishReason.LENGTH
    assert sum(isinstance(op, NewCache) for op in bench.operations()) == 2


# Queueing


def test_more_than_the_queue_holds_is_refused() -> None:
    bench = Bench(max_running=2, max_waiting=1)
    recorders = [bench.submit() for _ in range(3)]
    with pytest.raises(QueueFullError, match="3 requests"):
        bench.submit()
    assert bench.engine.num_open == 3
    bench.run_until(lambda: bench.engine.num_open < 3)
    late = bench.submit()
    bench.finish()
    assert all(r.finish() is FinishReason.LENGTH for r in [*recorders, late])


def test_no_more_than_max_running_have_caches() -> None:
    bench = Bench(max_running=2)
    recorders = [bench.submit(prompt) for prompt in PROMPTS]
    most = 0
    while bench.engine.num_open:
        bench.turn()
        most = max(most, len(bench.stage.contexts))
    assert most == 2
    bench.finish()
    assert all(recorder.finish() for recorder in recorders)


def test_held_requests_wait_and_the_probe_passes_them() -> None:
    bench = Bench(is_open=False)
    held = bench.submit("to")
    bench.turns(5)
    assert bench.stage.steps == []
    probe = bench.submit("probe", while_held=True)
    bench.run_until(lambda: probe.num_endings == 1)
    assert probe.tokens == continuation(tuple(map(ord, "probe")), 5)
    assert held.told == []
    bench.engine.open()
    bench.run_until(lambda: len(held.told) == 2)
    bench.finish()


# Ending


def test_closing_ends_running_and_waiting() -> None:
    bench = Bench(max_running=1)
    running, waiting = bench.submit(max_tokens=9), bench.submit()
    bench.run_until(lambda: len(running.told) == 2)
    error = StageError("for good")
    bench.engine.close(error)
    bench.finish()
    assert running.errors == waiting.told == [error]
    assert running.told[-1] is error


def test_stop_answers_everything() -> None:
    bench = Bench(max_running=1)
    running, waiting = bench.submit(max_tokens=99), bench.submit()
    bench.run_until(lambda: len(running.told) == 3)
    bench.engine.stop()
    # Asked for before the engine has seen the stop.
    late = bench.submit()
    bench.turns(3)
    for recorder in (running, waiting, late):
        assert [type(error) for error in recorder.errors] == [ClusterClosedError]
        assert recorder.num_endings == 1
        assert isinstance(recorder.told[-1], ClusterClosedError)
    assert bench.engine.num_open == 0
    with pytest.raises(ClusterClosedError):
        bench.submit()


class Threads:
    """The engine and the stage in a thread each."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.engine = threading.Thread(target=bench.engine.run, daemon=True)
        self.stage = threading.Thread(target=bench.stage.work_until_woken, daemon=True)
        self.stage.start()
        self.engine.start()

    def join(self) -> None:
        self.engine.join(DEADLINE_S)
        assert not self.engine.is_alive()
        self._bench.stage.inbound.wake()
        self.stage.join(DEADLINE_S)


def test_stop_wakes_a_loop_that_has_nothing_to_do() -> None:
    bench = Bench()
    threads = Threads(bench)
    assert not bench.engine.has_ended.is_set()
    bench.engine.stop()
    threads.join()
    assert bench.engine.has_ended.is_set()


def test_other_works_are_taken_up_by_a_loop_that_has_nothing_to_do() -> None:
    bench, other = Bench(), Bench()
    threads, has_begun = Threads(bench), threading.Event()
    first = Recorder()
    bench.engine.submit(Request("0", PROMPTS[1], max_tokens=2), first)
    wait_until(lambda: first.num_endings == 1, "the first stages answer", DEADLINE_S)
    works = new_works(other.pipeline, Settings(), other.caches)
    bench.engine.begin_epoch(2, works, has_begun.set)
    assert has_begun.wait(DEADLINE_S)
    bench.engine.open()
    second = Recorder()
    bench.engine.submit(Request("1", PROMPTS[2], max_tokens=2), second)
    wait_until(lambda: other.stage.work() > 0, "the other stages are asked", DEADLINE_S)
    bench.engine.stop()
    threads.join()
    assert [type(error) for error in second.errors] == [ClusterClosedError]


@pytest.mark.parametrize("num_before", [0, 1, 40])
def test_submitting_from_many_threads_while_stopping(num_before: int) -> None:
    """Each request gets exactly one ending: a listener's or the caller's."""
    bench = Bench(max_waiting=UNLIMITED)
    threads = Threads(bench)
    endings: queue.SimpleQueue[None] = queue.SimpleQueue()
    recorders: list[Recorder] = []

    def submit_until_closed(name: str) -> None:
        number = 0
        open_slots = threading.Semaphore(4)
        while open_slots.acquire(timeout=DEADLINE_S):
            recorder = Recorder()

            def listen(item: Output | TbclusterError, recorder: Recorder = recorder) -> None:
                recorder(item)
                if recorder.num_endings:
                    endings.put(None)
                    open_slots.release()

            request = Request(f"{name}-{number}", PROMPTS[1], max_tokens=2)
            try:
                bench.engine.submit(request, listen)
            except ClusterClosedError:
                assert recorder.told == []
                return
            recorders.append(recorder)
            number += 1

    callers = [
        threading.Thread(target=submit_until_closed, args=(str(i),), daemon=True) for i in range(4)
    ]
    for caller in callers:
        caller.start()
    for _ in range(num_before):
        endings.get(timeout=DEADLINE_S)
    bench.engine.stop()
    for caller in callers:
        caller.join(DEADLINE_S)
        assert not caller.is_alive()
    threads.join()
    assert len(recorders) >= num_before
    assert [recorder.num_endings for recorder in recorders] == [1] * len(recorders)
    assert bench.engine.num_open == 0


class BrokenDetokenizer(CharacterDetokenizer):
    def __init__(self, error: Exception, before_it_fails: Callable[[], None]) -> None:
        super().__init__()
        self._error = error
        self._before_it_fails = before_it_fails

    def add_token(self, token: TokenId) -> None:
        self._before_it_fails()
        raise self._error


def test_a_token_without_text_ends_its_request_alone() -> None:
    broken = BrokenDetokenizer(IndexError("list index out of range"), lambda: None)
    detokenizers = iter([CharacterDetokenizer(), broken])
    bench = Bench(new_detokenizer=lambda: next(detokenizers))
    good, bad = bench.submit(), bench.submit()
    bench.finish()
    assert good.finish() is FinishReason.LENGTH
    assert [type(error) for error in bad.errors] == [StageError]
    assert "no text" in str(bad.errors[0])
    assert bad.num_endings == 1


def test_a_failure_of_the_loop_itself_is_told_to_everyone() -> None:
    recorders: list[Recorder] = []
    # No error that the engine expects of a detokenizer.
    broken = BrokenDetokenizer(AttributeError("a bug"), lambda: recorders.append(bench.submit()))
    detokenizers = iter([CharacterDetokenizer(), broken])
    bench = Bench(new_detokenizer=lambda: next(detokenizers), max_running=2)
    recorders += [bench.submit(max_tokens=99) for _ in range(3)]
    Threads(bench).join()
    # The fourth was asked for while the loop was failing.
    assert len(recorders) == 4
    for recorder in recorders:
        assert recorder.num_endings == 1
        assert isinstance(recorder.told[-1], StageError)
        assert "a bug" in str(recorder.told[-1])
    assert recorders[0].tokens == continuation(tuple(map(ord, "hi")), len(recorders[0].tokens))
    with pytest.raises(StageError, match="a bug"):
        bench.submit()
