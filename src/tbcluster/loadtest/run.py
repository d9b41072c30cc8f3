"""Puts a server under load, cell by cell."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tbcluster.errors import EndpointError
from tbcluster.loadtest.client import LoadClient
from tbcluster.loadtest.plan import Cell, LoadPlan
from tbcluster.loadtest.prompts import Prompter
from tbcluster.loadtest.samples import Sample
from tbcluster.loadtest.summary import CellSummary, summarize

# Told what is being done, and how many requests of how many are.
OnProgress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Measured:
    """A cell, its requests, its figures."""

    cell: Cell
    samples: list[Sample]
    summary: CellSummary


@dataclass(slots=True)
class LoadTest:
    """A run; what is measured so far is in `measured`, whenever it ends."""

    plan: LoadPlan
    client: LoadClient
    on_progress: OnProgress
    measured: list[Measured] = field(default_factory=list)
    num_done: int = 0

    async def run(self) -> None:
        """All cells.

        Raises:
            EndpointError: The server cannot be measured.
        """
        async with self.client as client:
            self.on_progress("asking the server what it has", 0, self.plan.num_requests)
            await client.begin()
            prompter = Prompter(client.count, self.plan.seed)
            await prompter.learn(
                lambda done, total: self._tell(f"finding words of one token: {done} of {total}")
            )
            for num_tokens in self.plan.prompt_tokens:
                if num_tokens < prompter.least:
                    raise EndpointError(
                        f"--prompt-tokens {num_tokens}: this server's shortest prompt has "
                        f"{prompter.least} tokens"
                    )
                # Before anything is measured: a length that this server refuses ends the run.
                self._tell(f"making a prompt of {num_tokens:,} tokens")
                await prompter.check(num_tokens)
            numbers = itertools.count()
            for cell in self.plan.cells():
                await prompter.check(cell.prompt_tokens)
                await self._measure(cell, prompter, numbers)

    async def _measure(self, cell: Cell, prompter: Prompter, numbers: Iterator[int]) -> None:
        plan = self.plan
        what = f"{cell.streams} streams, {cell.prompt_tokens:,} prompt tokens"

        async def ask() -> Sample:
            text = prompter.make(cell.prompt_tokens, next(numbers), plan.shared_prefix)
            sample = await self.client.measure(text, plan.output_tokens)
            self.num_done += 1
            self._tell(what)
            return sample

        samples: list[Sample] = []

        async def one_client() -> None:
            for _ in range(plan.repeats):
                samples.append(await ask())

        self._tell(f"{what}: warming up")
        for _ in range(plan.warm_up):
            await ask()
        began_at = time.perf_counter()
        try:
            await asyncio.gather(*(one_client() for _ in range(cell.streams)))
        finally:
            # Who stops a long run still wants to see what it gave.
            if samples:
                seconds = time.perf_counter() - began_at
                summary = summarize(cell, samples, seconds)
                self.measured.append(Measured(cell, samples, summary))

    def _tell(self, what: str) -> None:
        self.on_progress(what, self.num_done, self.plan.num_requests)
