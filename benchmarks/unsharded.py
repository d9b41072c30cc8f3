"""mlx-lm in processes of their own, alone or side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.decode import Decode
from benchmarks.line_process import LineProcess


@dataclass(frozen=True, slots=True)
class Continuation:
    """Greedy tokens, and for each by how much its logprob exceeds the runner-up's."""

    tokens: list[int]
    margins: list[float]


class Unsharded(LineProcess):
    """One process with one model, as a context manager."""

    def __init__(self, model_path: Path) -> None:
        super().__init__("benchmarks.unsharded_process", str(model_path))

    def decode(self, prompt: list[int], num_tokens: int) -> Decode:
        """Continue a prompt greedily with `stream_generate`."""
        answer = self._run("decode", prompt=prompt, max_tokens=num_tokens)
        return Decode(tuple(answer["tokens"]), answer["ms_per_token"])

    def decode_many(self, prompts: Sequence[list[int]], num_steps: int) -> float:
        """Tokens per second of `BatchGenerator` while all prompts are being continued."""
        rate: float = self._run("decode_many", prompts=prompts, num_steps=num_steps)["tokens_per_s"]
        return rate

    def prefill(self, prompt: list[int]) -> float:
        """Seconds from a prompt to its first token."""
        seconds: float = self._run("prefill", prompt=prompt)["seconds"]
        return seconds

    def continuation(self, prompt: Sequence[int], max_tokens: int) -> Continuation:
        """Continue a prompt greedily with `generate_step`; an end-of-text token is the last one."""
        answer = self._run("continue", prompt=list(prompt), max_tokens=max_tokens)
        return Continuation(answer["tokens"], answer["margins"])

    def prepare(self, task: str, **arguments: Any) -> None:
        """Let the process do all that is not measured."""
        self.write(json.dumps({"task": task, **arguments}))
        assert self.read() == "ready"

    def start(self) -> None:
        """Let the measurement begin."""
        self.write("go")

    def answer(self) -> dict[str, Any]:
        """Wait for the end of the measurement."""
        answer: dict[str, Any] = self.read()
        return answer

    def _run(self, task: str, **arguments: Any) -> dict[str, Any]:
        self.prepare(task, **arguments)
        self.start()
        return self.answer()


class SideBySide:
    """Two processes that start each measurement together: the limit of two cores."""

    def __init__(self, first: Unsharded, second: Unsharded) -> None:
        self._both = (first, second)

    def decode_many(self, prompts: Sequence[list[int]], num_steps: int) -> float:
        """Tokens per second of both together, each with half of the prompts."""
        half = len(prompts) // 2
        parts = (prompts[:half], prompts[half:])
        for process, part in zip(self._both, parts, strict=True):
            process.prepare("decode_many", prompts=part, num_steps=num_steps)
        return sum(answer["tokens_per_s"] for answer in self._measure())

    def prefill(self, prompts: Sequence[list[int]]) -> float:
        """Seconds until both have answered, one prompt each."""
        for process, prompt in zip(self._both, prompts, strict=True):
            process.prepare("prefill", prompt=prompt)
        return max(answer["seconds"] for answer in self._measure())

    def _measure(self) -> list[dict[str, Any]]:
        for process in self._both:
            process.start()
        return [process.answer() for process in self._both]
