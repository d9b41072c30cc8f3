"""Long prompts: alone, while others decode, and as the second turn of a chat."""

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.full_pipeline.settings import PromptSettings
from benchmarks.full_pipeline.sides import NUM_STAGES, Sides, random_model, started_sides
from benchmarks.full_pipeline.streams import (
    RunningStreams,
    answer,
    endless,
    plain_request,
    random_prompt,
    running,
)
from benchmarks.harness import Bar, Report, interleaved_pairs, median_ratio, note, report_ratio
from tbcluster import Cluster

LIMIT_BAR = Bar(">=", 0.85, "x")
ONE_PROCESS_BAR = Bar(">=", 1.45, "x")
GAP_BAR = Bar("<=", 2.5, "x")
SECOND_TURN_BAR = Bar("<=", 0.15, "x")

NewPrompt = Callable[[int], list[int]]


@dataclass(frozen=True, slots=True)
class Prefill:
    """One round, in seconds to the first token; `side_by_side` is for two prompts."""

    one: float
    side_by_side: float
    ours: float


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What one long prompt did to running streams, in seconds between their tokens."""

    before: list[float]
    during: list[float]
    first_token_s: float


@dataclass(frozen=True, slots=True)
class Chat:
    """Seconds to the first token of both turns, and what the second had from the first."""

    cold: float
    second: float
    num_cached_tokens: int


def measure_prompts(report: Report, settings: PromptSettings) -> None:
    """Add the rows on prompts."""
    new_prompt = _new_prompts(random.Random(1), settings.model.vocab_size)
    with random_model(settings.model) as path, started_sides(path) as sides:
        prefills = _prefills(sides, settings, new_prompt)
        disturbances = _disturbances(sides.cluster, settings, new_prompt)
        chats = _chats(sides.cluster, settings, new_prompt)
    _report_prefills(report, settings, prefills)
    _report_disturbances(report, settings, disturbances)
    _report_chats(report, settings, chats)


def _new_prompts(source: random.Random, vocab_size: int) -> NewPrompt:
    return lambda num_tokens: random_prompt(source, num_tokens, vocab_size)


# A prompt alone


def _prefills(sides: Sides, settings: PromptSettings, new_prompt: NewPrompt) -> list[Prefill]:
    note(f"a prompt of {settings.num_tokens} tokens")

    def theirs() -> tuple[float, float]:
        alone = sides.one.prefill(new_prompt(settings.num_tokens))
        prompts = [new_prompt(settings.num_tokens) for _ in range(NUM_STAGES)]
        return alone, sides.side_by_side.prefill(prompts)

    def ours() -> float:
        request = plain_request(sides.cluster, new_prompt(settings.num_tokens), 1)
        return answer(sides.cluster, request).waiting.seconds

    pairs = interleaved_pairs(theirs, ours, settings.num_pairs)
    return [Prefill(*theirs, ours) for theirs, ours in pairs]


def _report_prefills(report: Report, settings: PromptSettings, rounds: list[Prefill]) -> None:
    size = settings.num_tokens
    name = f"prompt of {size} tokens"
    for side, speeds in (
        ("mlx-lm in one process", [size / r.one for r in rounds]),
        ("mlx-lm in two, one prompt each", [NUM_STAGES * size / r.side_by_side for r in rounds]),
        ("tbcluster", [size / r.ours for r in rounds]),
    ):
        report.add(f"{name}: {side}", statistics.median(speeds), "tok/s")
    # Speeds are inverse to times: limit / ours is (ours' speed) / (limit's speed).
    limits = [(r.side_by_side / NUM_STAGES, r.ours) for r in rounds]
    report_ratio(report, f"{name}: speed / limit of two cores", limits, LIMIT_BAR)
    ones = [(r.one, r.ours) for r in rounds]
    report_ratio(report, f"{name}: speed / one mlx-lm", ones, ONE_PROCESS_BAR)


# A prompt while others decode


def _disturbances(
    cluster: Cluster, settings: PromptSettings, new_prompt: NewPrompt
) -> list[Disturbance]:
    note(f"a prompt while {settings.num_streams} streams decode")
    prompts = [new_prompt(settings.num_stream_prompt_tokens) for _ in range(settings.num_streams)]
    with running(cluster, prompts) as streams:
        return [
            _disturb(cluster, streams, settings, new_prompt)
            for _ in range(1 + settings.num_arrivals)
        ][1:]


def _disturb(
    cluster: Cluster, streams: RunningStreams, settings: PromptSettings, new_prompt: NewPrompt
) -> Disturbance:
    before = streams.run(settings.num_undisturbed_steps)
    request = plain_request(cluster, new_prompt(settings.num_tokens), 1)
    during = answer(cluster, request).waiting
    # The gaps that the prompt's end lies in end here.
    streams.run(settings.num_steps_between)
    return Disturbance(streams.gaps(before), streams.gaps(during), during.seconds)


def _report_disturbances(
    report: Report, settings: PromptSettings, disturbances: list[Disturbance]
) -> None:
    name = f"prompt of {settings.num_tokens} tokens beside {settings.num_streams} streams"
    p95s = [(p95(d.during), p95(d.before)) for d in disturbances]
    medians = [(p95(d.during), statistics.median(d.before)) for d in disturbances]
    for when, index in (("before", 1), ("during", 0)):
        gap = statistics.median(pair[index] for pair in p95s)
        report.add(f"{name}: p95 gap between tokens {when} it", 1e3 * gap, "ms")
    report_ratio(report, f"{name}: p95 gap during / before", p95s, GAP_BAR)
    report.add(f"{name}: p95 gap during / median before", median_ratio(medians), "x")
    waits = statistics.median(d.first_token_s for d in disturbances)
    report.add(f"{name}: its time to first token", waits, "s")


def p95(values: Sequence[float]) -> float:
    """The smallest value that 95 % of them do not exceed."""
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


# The second turn of a chat


def _chats(cluster: Cluster, settings: PromptSettings, new_prompt: NewPrompt) -> list[Chat]:
    note(f"second turn after {settings.num_history_tokens} tokens")
    return [_chat(cluster, settings, new_prompt) for _ in range(1 + settings.num_chats)][1:]


def _chat(cluster: Cluster, settings: PromptSettings, new_prompt: NewPrompt) -> Chat:
    """Two turns; prefixes are used as they are by default."""
    history = new_prompt(settings.num_history_tokens)
    request = endless(cluster.make_request(history, max_tokens=settings.num_answer_tokens))
    cold = answer(cluster, request)
    history = [*history, *cold.tokens, *new_prompt(settings.num_new_tokens)]
    request = endless(cluster.make_request(history, max_tokens=settings.num_answer_tokens))
    second = answer(cluster, request)
    assert cold.num_cached_tokens == 0, "a random prompt was known"
    return Chat(cold.waiting.seconds, second.waiting.seconds, second.num_cached_tokens)


def _report_chats(report: Report, settings: PromptSettings, chats: list[Chat]) -> None:
    name = f"chat of {settings.num_history_tokens} tokens"
    for turn, seconds in (
        ("first", [chat.cold for chat in chats]),
        ("second", [chat.second for chat in chats]),
    ):
        report.add(f"{name}: time to first token, {turn} turn", statistics.median(seconds), "s")
    cached = statistics.median(chat.num_cached_tokens for chat in chats)
    report.add(f"{name}: known tokens of the second turn's prompt", cached, "tokens")
    pairs = [(chat.second, chat.cold) for chat in chats]
    report_ratio(report, f"{name}: second turn / first", pairs, SECOND_TURN_BAR)
