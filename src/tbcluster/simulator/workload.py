"""What clients ask of a simulated rack. Deterministic by seed."""

import json
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tbcluster.errors import SimulationError

MAX_TOKENS = 1 << 22
MAX_REQUESTS = 1_000_000
_LENGTHS = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True, slots=True)
class Lengths:
    """Token counts between two bounds, both included. Where they differ, small ones are as likely
    as large ones of the same order of magnitude, as in recorded traffic."""

    least: int
    most: int

    def draw(self, rng: random.Random) -> int:
        """One of them."""
        if self.least == self.most:
            return self.least
        drawn = math.exp(rng.uniform(math.log(self.least), math.log(self.most + 1)))
        return min(self.most, int(drawn))


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """A request.

    Attributes:
        arrival_s: When it comes; None for as soon as a client is free.
        num_shared: How many of its prompt's tokens, from the beginning, all prompts share.
    """

    arrival_s: float | None
    num_prompt: int
    num_output: int
    num_shared: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests, in order.

    Attributes:
        clients: How many clients send those without an arrival of their own, each the next one when
            its last one has ended.
    """

    requests: tuple[SimulatedRequest, ...]
    clients: int = 0


def parse_lengths(text: str) -> Lengths:
    """ "512" or "128-2048".

    Raises:
        SimulationError: It is neither, or no such counts can be.
    """
    found = _LENGTHS.fullmatch(text.strip())
    if found is None:
        raise SimulationError(
            f"{text!r} is no number of tokens: write 512, or 128-2048 for anything between"
        )
    least, most = int(found[1]), int(found[2] or found[1])
    if not 1 <= least <= most <= MAX_TOKENS:
        raise SimulationError(
            f"{text!r}: both ends must lie between 1 and {MAX_TOKENS:,}, the smaller one first"
        )
    return Lengths(least, most)


def closed_loop(
    clients: int, count: int, prompt: Lengths, output: Lengths, shared: int = 0, seed: int = 0
) -> Workload:
    """So many clients, each of which sends its next request when the last one has ended."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    requests = tuple(_drawn(rng, None, prompt, output, shared) for _ in range(count))
    return Workload(requests, clients)


def open_loop(
    per_s: float, count: int, prompt: Lengths, output: Lengths, shared: int = 0, seed: int = 0
) -> Workload:
    """Requests that come by themselves, so many a second on average (a Poisson process)."""
    rng = random.Random(seed)  # noqa: S311 - nothing secret
    requests, now = [], 0.0
    for _ in range(count):
        now += rng.expovariate(per_s)
        requests.append(_drawn(rng, now, prompt, output, shared))
    return Workload(tuple(requests))


def read_trace(path: Path) -> Workload:
    """A recorded workload: a JSON object a line, with arrival_s, prompt_tokens and output_tokens.

    Raises:
        SimulationError: The file cannot be read, or a line of it; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SimulationError(f"the trace {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SimulationError(f"the trace {path} is no text in UTF-8: save it as such") from error
    requests = [
        _of_line(f"{path}, line {number}", line)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not requests:
        raise SimulationError(f"the trace {path} has no requests: write one a line")
    return Workload(tuple(sorted(requests, key=lambda one: one.arrival_s or 0.0)))


def _drawn(
    rng: random.Random, arrival_s: float | None, prompt: Lengths, output: Lengths, shared: int
) -> SimulatedRequest:
    num_prompt = prompt.draw(rng)
    return SimulatedRequest(arrival_s, num_prompt, output.draw(rng), min(shared, num_prompt))


def _of_line(where: str, line: str) -> SimulatedRequest:
    example = '{"arrival_s": 0.5, "prompt_tokens": 512, "output_tokens": 128}'
    try:
        fields: Any = json.loads(line)
    except ValueError as error:
        raise SimulationError(f"{where} is no JSON ({error}): write {example}") from error
    if not isinstance(fields, dict):
        raise SimulationError(f"{where} is no JSON object: write {example}")
    if "arrival_s" not in fields:
        raise SimulationError(f"{where}: arrival_s is missing: write seconds, 0 or more")
    arrival = fields["arrival_s"]
    is_number = isinstance(arrival, int | float) and not isinstance(arrival, bool)
    arrival_s = float(arrival or 0) if is_number else -1.0
    if not 0 <= arrival_s < math.inf:
        raise SimulationError(f"{where}: arrival_s is {arrival!r}: write seconds, 0 or more")
    counts = [_count(where, fields, name) for name in ("prompt_tokens", "output_tokens")]
    return SimulatedRequest(arrival_s, *counts)


def _count(where: str, fields: dict[str, object], name: str) -> int:
    if name not in fields:
        raise SimulationError(f"{where}: {name} is missing: write 1 to {MAX_TOKENS:,}")
    value = fields[name]
    if type(value) is not int or not 1 <= value <= MAX_TOKENS:
        raise SimulationError(f"{where}: {name} is {value!r}: write 1 to {MAX_TOKENS:,}")
    return value
