"""Random requests that come, end, are cancelled and share prefixes; each compared with one alone.

Greedy ones are compared with mlx-lm's `generate_step`, sampled ones (mlx-lm knows no seed of a
request's own) with the same request sent again when nothing else runs.
"""

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.full_pipeline.settings import CorrectnessSettings
from benchmarks.full_pipeline.sides import NUM_STAGES, random_model
from benchmarks.full_pipeline.streams import DEADLINE_S, answer, random_prompt
from benchmarks.harness import Bar, Report, note
from benchmarks.unsharded import Unsharded
from tbcluster import Cluster
from tbcluster.core import Output, Request, SamplingParams
from tbcluster.errors import TbclusterError

NONE = Bar("<=", 0)
SOME = Bar(">=", 1)
# Shares of the requests.
FRESH, LIKE_A_PROMPT = 0.4, 0.3  # the others go on after an earlier answer
CANCELLED = 0.15
SAMPLED = 0.2
MEAN_PAUSE_S = 0.01


@dataclass(slots=True, eq=False)
class Trial:
    """One request, and as a listener what became of it.

    Attributes:
        cancel_after: Tokens after which it is cancelled; None for never.
    """

    request: Request
    cancel_after: int | None
    cluster: Cluster
    ended: threading.Semaphore
    tokens: list[int] = field(default_factory=list)
    num_cached_tokens: int = 0
    is_over: bool = False
    is_cancelled: bool = False
    error: TbclusterError | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, item: Output | TbclusterError) -> None:
        if isinstance(item, TbclusterError):
            self.error = item
            self._end()
            return
        self.tokens.append(item.sampled.token)
        self.num_cached_tokens = item.num_cached_tokens
        if item.finish_reason is not None:
            self._end()
        elif self.cancel_after is not None and len(self.tokens) >= self.cancel_after:
            self.cancel()

    def cancel(self) -> None:
        """End it now."""
        self.is_cancelled = True
        self.cluster.cancel(self.request)
        self._end()

    def agrees_with(self, alone: Sequence[int]) -> bool:
        """Whether it answered as it does alone, as far as it went."""
        size = len(self.tokens)
        return self.tokens == list(alone[:size]) and (self.is_cancelled or size == len(alone))

    def _end(self) -> None:
        with self._lock:
            was_over, self.is_over = self.is_over, True
        if not was_over:
            self.ended.release()


def measure_correctness(report: Report, settings: CorrectnessSettings) -> None:
    """Add the rows on correctness."""
    with random_model(settings.model) as path:
        note(f"{settings.num_requests} requests, {settings.max_open} at once at most")
        with Cluster(path, stages=NUM_STAGES) as cluster:
            trials = _run_trials(cluster, settings)
            sampled = [trial for trial in trials if trial.request.sampling.temperature > 0]
            num_sampled_wrong = sum(_differs_from_again(cluster, trial) for trial in sampled)
        greedy = [trial for trial in trials if trial.request.sampling.temperature == 0]
        num_greedy_wrong = _num_different_from_mlx_lm(path, greedy)
    _report_numbers(report, trials)
    greedy_name, sampled_name = f"{len(greedy)} greedy ones", f"{len(sampled)} sampled ones"
    report.add(f"{greedy_name}: differ from mlx-lm alone", num_greedy_wrong, "", NONE)
    report.add(f"{sampled_name}: differ from the same alone", num_sampled_wrong, "", NONE)


def _report_numbers(report: Report, trials: Sequence[Trial]) -> None:
    name = f"{len(trials)} random requests"
    report.add(f"{name}: ended in an error", sum(t.error is not None for t in trials), "", NONE)
    report.add(f"{name}: cancelled", sum(t.is_cancelled for t in trials), "", SOME)
    num_hits = sum(trial.num_cached_tokens > 0 for trial in trials)
    report.add(f"{name}: began from a known prefix", num_hits, "", SOME)


# The requests


def _run_trials(cluster: Cluster, settings: CorrectnessSettings) -> list[Trial]:
    """Send them at random times, and wait for the last."""
    source = random.Random(settings.seed)
    free = threading.Semaphore(settings.max_open)
    trials: list[Trial] = []
    for _ in range(settings.num_requests):
        assert free.acquire(timeout=DEADLINE_S), "no request ends any more"
        time.sleep(source.expovariate(1 / MEAN_PAUSE_S))
        trial = _new_trial(cluster, settings, source, trials, free)
        trials.append(trial)
        cluster.submit(trial.request, trial)
        if trial.cancel_after == 0:
            trial.cancel()
    for _ in range(settings.max_open):
        assert free.acquire(timeout=DEADLINE_S), "a request did not end"
    for trial in trials:
        if trial.error is not None:
            note(f"{trial.request.request_id}: {trial.error}")
    return trials


def _new_trial(
    cluster: Cluster,
    settings: CorrectnessSettings,
    source: random.Random,
    earlier: Sequence[Trial],
    free: threading.Semaphore,
) -> Trial:
    max_tokens = source.randint(1, settings.max_tokens)
    is_sampled = source.random() < SAMPLED
    sampling = SamplingParams(temperature=0.8, seed=source.randrange(1 << 31))
    request = cluster.make_request(
        _new_prompt(settings, source, earlier),
        max_tokens=max_tokens,
        sampling=sampling if is_sampled else SamplingParams(),
    )
    is_cancelled = source.random() < CANCELLED
    cancel_after = source.randrange(max_tokens) if is_cancelled else None
    return Trial(request, cancel_after, cluster, free)


def _new_prompt(
    settings: CorrectnessSettings, source: random.Random, earlier: Sequence[Trial]
) -> list[int]:
    """New, beginning as an earlier one did, or going on after an earlier answer."""
    kind = source.random()
    fresh = random_prompt(
        source, source.randint(1, settings.max_prompt_tokens), settings.model.vocab_size
    )
    if kind < FRESH or not earlier:
        return fresh
    other = source.choice(earlier)
    begin = list(other.request.prompt)
    if kind < FRESH + LIKE_A_PROMPT:
        begin = begin[: source.randint(1, len(begin))]
    else:
        begin += other.tokens
    num_new = source.randint(1, max(1, len(fresh) // 4))
    return [*begin, *fresh[:num_new]][: settings.max_prompt_tokens]


# Each of them alone


def _num_different_from_mlx_lm(path: Path, trials: Sequence[Trial]) -> int:
    note(f"{len(trials)} of them with mlx-lm")
    with Unsharded(path) as mlx_lm:
        return sum(_differs_from_mlx_lm(mlx_lm, trial) for trial in trials)


def _differs_from_mlx_lm(mlx_lm: Unsharded, trial: Trial) -> bool:
    alone = mlx_lm.continuation(trial.request.prompt, trial.request.max_tokens)
    if trial.error is not None or trial.agrees_with(alone.tokens):
        return False
    _note_difference(trial, alone.tokens)
    margins = " ".join(f"{margin:.1e}" for margin in alone.margins)
    note(f"mlx-lm's logprobs exceed the runners-up's by {margins}")
    return True


def _differs_from_again(cluster: Cluster, trial: Trial) -> bool:
    request = replace(trial.request, request_id=f"{trial.request.request_id}-again")
    alone = answer(cluster, replace(request, cache_prompt=False)).tokens
    if trial.error is not None or trial.agrees_with(alone):
        return False
    _note_difference(trial, alone)
    return True


def _note_difference(trial: Trial, alone: Sequence[int]) -> None:
    prompt = trial.request.prompt
    known = f"{len(prompt)} prompt tokens, {trial.num_cached_tokens} of them known"
    note(f"{trial.request.request_id} ({known}): {trial.tokens} and not {list(alone)}")
