"""Eight requests of every kind, run at once, and what they were told."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tbcluster.cluster.cluster import Cluster
from tbcluster.core import Grammar, LogitRules, Output, Request, SamplingParams
from tbcluster.errors import TbclusterError
from tests.doubles.faults.clients import ENDLESS_JSON
from tests.doubles.waiting import wait_until

NUM_TOKENS = 40
# Longer than a chunk, so that a worker can die between two of them.
LONG_PROMPT = tuple(2 + at % 290 for at in range(2600))
# Long enough to be kept as a known prefix.
SHARED = tuple(range(10, 90))
DEADLINE_S = 60.0

Tokens = tuple[int, ...]


class Stream:
    """One request and what it was told, token by token."""

    def __init__(self, cluster: Cluster, request: Request) -> None:
        self.request = request
        self.outputs: list[Output] = []
        self.error: TbclusterError | None = None
        self.is_over = threading.Event()
        self._cluster = cluster
        cluster.submit(request, self._hear)

    @property
    def tokens(self) -> Tokens:
        """What came so far."""
        return tuple(output.sampled.token for output in self.outputs)

    def cancel(self) -> None:
        """Want no more of it."""
        self._cluster.cancel(self.request)

    def finish(self) -> Tokens:
        """Wait for its end, and give all of it.

        Raises:
            AssertionError: It did not end, or in an error.
        """
        assert self.is_over.wait(DEADLINE_S), f"it hangs after {len(self.outputs)} tokens"
        assert self.error is None, self.error
        return self.tokens

    def _hear(self, item: Output | TbclusterError) -> None:
        if isinstance(item, Output):
            self.outputs.append(item)
        else:
            self.error = item
        if not isinstance(item, Output) or item.finish_reason is not None:
            self.is_over.set()


def eight(cluster: Cluster) -> list[Request]:
    """Greedy, sampled with seeds, with penalties, held to JSON; short and long prompts, and two
    that begin alike."""
    json = LogitRules(grammar=Grammar(cluster.grammars.json_schema(ENDLESS_JSON)))
    penalties = LogitRules(
        repetition_penalty=1.3, frequency_penalty=0.5, presence_penalty=0.2, logit_bias=((7, 2.0),)
    )
    kinds: list[tuple[Sequence[int], dict[str, Any], LogitRules | None]] = [
        ((5, 6, 7), {}, None),
        (LONG_PROMPT, {}, None),
        ((*SHARED, 100), {"temperature": 0.9, "seed": 11}, None),
        ((*SHARED, 101), {"temperature": 1.0, "top_p": 0.9, "top_k": 50, "seed": 12}, None),
        ((9, 8, 7, 6), {"temperature": 0.7, "seed": 13}, penalties),
        ((20, 21), {"num_logprobs": 2}, penalties),
        ((30, 31, 32), {}, json),
        ((40, 41, 42), {"temperature": 1.0, "seed": 14}, json),
    ]
    return [
        replace(
            cluster.make_request(
                prompt,
                max_tokens=NUM_TOKENS,
                sampling=SamplingParams(**sampling),
                # Known prefixes are kept by the test that looks for them.
                cache_prompt=False,
                rules=rules,
            ),
            stop_tokens=frozenset(),
        )
        for prompt, sampling, rules in kinds
    ]


def submitted(cluster: Cluster) -> list[Stream]:
    """All eight, running."""
    return [Stream(cluster, request) for request in eight(cluster)]


def finished(streams: Sequence[Stream]) -> list[Tokens]:
    """What each of them was told in the end."""
    return [stream.finish() for stream in streams]


def await_tokens(streams: Sequence[Stream], num_tokens: int) -> None:
    """Wait until half of them have as many: the long prompt is computed meanwhile."""
    wait_until(
        lambda: sum(len(stream.outputs) >= num_tokens for stream in streams) >= len(streams) // 2,
        f"half of the streams have {num_tokens} tokens",
    )
