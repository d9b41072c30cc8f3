"""Known prefixes through the whole engine: what they spare, and that they change no answer."""

import threading
from pathlib import Path
from typing import Any

import pytest

from tbcluster.core import Output, Request, TokenId
from tbcluster.engine.pipeline import Pipeline
from tbcluster.engine.saved_prefixes import SavedPrefixes
from tbcluster.errors import TbclusterError
from tests.doubles.engines import Settings, new_caches, new_engine, new_works
from tests.doubles.stage_double import StageDouble, continuation

SYSTEM = tuple(map(ord, "You answer briefly, kindly, and in the language of the question. " * 2))
QUESTIONS = [
    tuple(map(ord, text + " " * 70)) for text in ("what is up?", "how are you?", "do you?")
]
MAX_TURNS = 1000


class Bench:
    """An engine, the stage that answers it, and what each request was told."""

    def __init__(self, saved: SavedPrefixes | None = None, **settings: Any) -> None:
        self.stage = StageDouble()
        self.caches = new_caches(Settings(**settings))
        pipeline = Pipeline(self.stage.inbound, self.stage.results)
        self.engine = new_engine(pipeline, Settings(**settings), self.caches, saved=saved)
        self.engine.open()
        self._num_requests = 0
        self.most_steps: int | None = None  # that the stage answers in one turn

    def submit(self, prompt: tuple[TokenId, ...], **fields: Any) -> list[Output]:
        outputs: list[Output] = []

        def listen(item: Output | TbclusterError) -> None:
            assert isinstance(item, Output), item
            outputs.append(item)

        fields = {"request_id": str(self._num_requests), "max_tokens": 8, **fields}
        self._num_requests += 1
        self.engine.submit(Request(prompt=prompt, **fields), listen)
        return outputs

    def finish(self) -> None:
        for _ in range(MAX_TURNS):
            self.engine.step(0)
            self.stage.work(self.most_steps)
            if self.engine.num_open == 0:
                break
        for _ in range(20):  # what is written to disk goes out when nothing runs
            self.engine.step(0)
            self.stage.work()
        assert self.engine.num_open == 0

    def ask(self, prompt: tuple[TokenId, ...], **fields: Any) -> tuple[list[TokenId], int]:
        """The answer, checked, and how much of the prompt was known."""
        outputs = self.submit(prompt, **fields)
        self.finish()
        return self.checked(prompt, outputs)

    def checked(
        self, prompt: tuple[TokenId, ...], outputs: list[Output]
    ) -> tuple[list[TokenId], int]:
        tokens = [output.sampled.token for output in outputs]
        assert tokens == continuation(prompt, 8)
        return tokens, outputs[-1].num_cached_tokens


def test_a_second_turn_starts_from_the_first_and_its_answer() -> None:
    bench = Bench()
    first = SYSTEM + QUESTIONS[0]
    answer, num_known = bench.ask(first)
    assert num_known == 0
    second = (*first, *answer, *QUESTIONS[1])
    # The newest token of the answer was never computed.
    assert bench.ask(second)[1] == len(first) + len(answer) - 1
    assert bench.ask(second)[1] == len(second) - 1


def test_a_request_may_opt_out() -> None:
    bench = Bench()
    bench.ask(SYSTEM, cache_prompt=False)
    assert len(bench.caches.prefixes) == 0
    bench.ask(SYSTEM)
    assert bench.ask(SYSTEM, cache_prompt=False)[1] == 0
    assert bench.ask(SYSTEM)[1] == len(SYSTEM) - 1


@pytest.mark.parametrize("max_trimmable_tokens", [None, 0])
def test_prompts_that_share_a_beginning(max_trimmable_tokens: int | None) -> None:
    bench = Bench(max_trimmable_tokens=max_trimmable_tokens)
    known = [bench.ask(SYSTEM + question)[1] for question in QUESTIONS]
    # Recurrent caches cannot be cut back to the fork: the second prompt leaves a copy there.
    assert known == [0, 0 if max_trimmable_tokens == 0 else len(SYSTEM), len(SYSTEM)]


def test_choices_of_one_prompt_compute_it_once() -> None:
    bench = Bench()
    prompt = SYSTEM + QUESTIONS[0]
    choices = [bench.submit(prompt) for _ in range(4)]
    bench.finish()
    known = [bench.checked(prompt, outputs)[1] for outputs in choices]
    # They start while the first one's last chunk may still fail: a chunk of theirs tells.
    assert known == [0, *[len(prompt) - 2] * 3]


def test_memory_is_bounded_and_the_longest_unused_goes_first() -> None:
    bench = Bench(kv_tokens=3072)
    prompts = [question + SYSTEM for question in QUESTIONS]
    for prompt in prompts:
        bench.ask(prompt)
    assert bench.ask(prompts[0])[1] == len(prompts[0]) - 1
    bench.ask(tuple(reversed(SYSTEM)))
    # Four at most fit, with the one that was asked last.
    assert bench.ask(prompts[1])[1] == 0
    assert bench.stage.num_tokens <= 3072


def saved_and_opened_again(
    folder: Path, prompt: tuple[TokenId, ...]
) -> tuple[Bench, SavedPrefixes]:
    """An engine that has saved a prompt and is gone, and its list for the next one."""
    saved = SavedPrefixes(folder, "model", 10**9)
    before = Bench(saved)
    before.ask(prompt)
    saved.close()
    return before, SavedPrefixes(folder, "model", 10**9)


def test_saved_prefixes_survive_a_restart(tmp_path: Path) -> None:
    prompt = SYSTEM + QUESTIONS[0]
    before, again = saved_and_opened_again(tmp_path, prompt)
    after = Bench(again)
    after.stage.saved = before.stage.saved
    assert after.stage.saved
    # One token is left to compute, besides the last: it tells whether the file was there.
    assert after.ask(prompt)[1] == len(prompt) - 2
    assert after.ask(prompt)[1] == len(prompt) - 1
    again.close()


@pytest.mark.parametrize("has_other_works", [False, True])
def test_saved_prefixes_survive_an_epoch(tmp_path: Path, has_other_works: bool) -> None:
    bench = Bench(saved := SavedPrefixes(tmp_path, "model", 10**9))
    prompt = SYSTEM + QUESTIONS[0]
    bench.ask(prompt)
    bench.engine.pause()
    bench.engine.step(0)
    works = None
    if has_other_works:
        # The same layers on other nodes: the stages have the same files.
        saved.close()
        saved = SavedPrefixes(tmp_path, "model", 10**9)
        bench.stage, before = StageDouble(), bench.stage
        bench.stage.saved = before.saved
        bench.caches = new_caches(Settings())
        pipeline = Pipeline(bench.stage.inbound, bench.stage.results)
        works = new_works(pipeline, Settings(), bench.caches, saved)
    bench.engine.begin_epoch(2, works)
    bench.engine.open()
    assert bench.stage.saved
    # One that comes from disk leaves a token more to compute.
    assert bench.ask(prompt)[1] == len(prompt) - 2
    saved.close()


def test_saved_prefixes_survive_eviction(tmp_path: Path) -> None:
    saved = SavedPrefixes(tmp_path, "model", 10**9)
    bench = Bench(saved, kv_tokens=1536)
    prompts = [question + SYSTEM for question in QUESTIONS]
    for prompt in prompts:
        bench.ask(prompt)
    assert all(bench.ask(prompt)[1] >= len(prompt) - 2 for prompt in prompts)
    assert bench.stage.num_tokens <= 1536
    saved.close()


def test_a_lost_file_costs_time_but_no_answer(tmp_path: Path) -> None:
    prompt = SYSTEM + QUESTIONS[0]
    _, again = saved_and_opened_again(tmp_path, prompt)
    after = Bench(again)
    # The stage's files are gone.
    after.ask(prompt)
    assert after.ask(prompt)[1] == len(prompt) - 1
    again.close()


def test_the_disk_is_bounded(tmp_path: Path) -> None:
    saved = SavedPrefixes(tmp_path, "model", 1600)
    bench = Bench(saved)
    for question in QUESTIONS:
        bench.ask(question + SYSTEM)
    assert saved.num_bytes <= 1600
    assert len(bench.stage.saved) == len(saved.entries()) == 2
    saved.close()


class Fault:
    """Fails the first step that reaches so many tokens, and no other."""

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self.is_over = False

    def __call__(self, row: Any) -> bool:
        fails = not self.is_over and len(row) >= self.num_tokens
        self.is_over |= fails
        return fails


@pytest.mark.parametrize("fails_late", [False, True])
@pytest.mark.parametrize("max_per_sequence", [1, 1 << 30])
@pytest.mark.parametrize("num_tokens", range(0, 216, 24))
def test_a_step_that_fails_leaves_no_prefix_that_lacks_tokens(
    num_tokens: int, max_per_sequence: int, fails_late: bool
) -> None:
    bench = Bench(chunk_tokens=50, max_per_sequence=max_per_sequence)
    prompt = SYSTEM + QUESTIONS[0]
    bench.stage.fails = Fault(num_tokens)
    bench.stage.fails_late = fails_late
    bench.most_steps = 1
    # Three of them, so that others start from what the first is about to leave.
    choices = [bench.submit(prompt) for _ in range(3)]
    bench.finish()
    assert bench.stage.fails.is_over
    for outputs in choices:
        bench.checked(prompt, outputs)
    assert bench.ask(prompt)[1] == len(prompt) - 1
    kept = {entry.cache_id: [list(entry.tokens)] for entry in bench.caches.prefixes}
    assert kept == bench.stage.contexts


def test_a_lost_file_disturbs_no_other_stream(tmp_path: Path) -> None:
    prompt = SYSTEM + QUESTIONS[0]
    _, again = saved_and_opened_again(tmp_path, prompt)
    after = Bench(again)
    running = after.submit(QUESTIONS[1], max_tokens=8)
    while len(running) < 3:
        after.engine.step(0)
        after.stage.work()
    after.ask(prompt)
    assert not any(isinstance(item, TbclusterError) for item in running)
    after.checked(QUESTIONS[1], running)
    again.close()


@pytest.mark.parametrize("num_turns", range(3, 30))
def test_what_a_cancelled_request_leaves_is_whole(num_turns: int) -> None:
    bench = Bench(chunk_tokens=50)
    prompt = SYSTEM + QUESTIONS[0]
    bench.submit(prompt, request_id="x", max_tokens=100)
    for _ in range(num_turns):
        bench.engine.step(0)
        bench.stage.work(1)
    bench.engine.cancel("x")
    bench.finish()
    kept = {entry.cache_id: [list(entry.tokens)] for entry in bench.caches.prefixes}
    assert kept == bench.stage.contexts
    bench.ask(prompt)


def test_what_is_known_can_be_asked_for_while_it_changes() -> None:
    """From another thread, as whoever chooses between engines does."""
    bench = Bench()
    asked = Request("asked", SYSTEM + QUESTIONS[0], 8)
    answers: set[int] = set()
    errors: list[Exception] = []
    is_over = threading.Event()

    def ask() -> None:
        try:
            while not is_over.is_set():
                answers.add(bench.engine.num_known(asked))
        except Exception as error:  # told in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for number in range(30):
        bench.ask(SYSTEM[: 20 + 3 * number] + QUESTIONS[1] + (number,))
    bench.ask(SYSTEM + QUESTIONS[0])
    is_over.set()
    thread.join()
    assert not errors
    assert answers <= set(range(len(asked.prompt)))
    assert bench.engine.num_known(asked) == len(asked.prompt) - 1
    assert bench.engine.num_known(Request("other", asked.prompt, 8, cache_prompt=False)) == 0
