"""One stream whose stages come to harm: from the harm to the next token, part by part."""

import json
import os
import queue
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from benchmarks.line_process import LineProcess
from tbcluster import Cluster
from tbcluster.cluster.layout import PlacedRange
from tbcluster.cluster.rack.rack import Rack
from tbcluster.cluster.status import ClusterState
from tbcluster.core import Output, Request, StageRange
from tbcluster.errors import TbclusterError
from tests.doubles.faults.rack import HEAD, FaultRack
from tests.doubles.waiting import wait_until

PROMPT_TOKENS, NUM_TOKENS, KILLED_AT = 400, 120, 40
DEADLINE_S = 120.0
# What is said to the coordinator's process, by whether the stages shall be back.
MOVED = ("gone", "back")


@dataclass(frozen=True, slots=True)
class Parts:
    """Seconds, one after another, but for the last.

    Attributes:
        detection: Until requests were paused.
        load: Until all stages took steps again: of another plan too, where there is one.
        check: Until their output was compared.
        prefill: Until the first token that came of the known ones, computed again.
        total: From the harm to the next token, as the listener hears it.
        one_prefill: What a prompt as long takes where nothing happens.
    """

    detection: float
    load: float
    check: float
    prefill: float
    total: float
    one_prefill: float

    @property
    def rest(self) -> float:
        """What is neither detection nor load nor one prefill."""
        return self.total - self.detection - self.load - self.one_prefill


class Rounds:
    """Makes rounds on one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._nodes = self._nodes_now()

    def run(self, harm: Callable[[], float]) -> Parts:
        """One round.

        Args:
            harm: Does it, and gives the Unix time at which it was done.
        """
        wait_until(self._is_well, "the stages are where they were", DEADLINE_S)
        one_prefill = self._prefill_s(PROMPT_TOKENS + KILLED_AT)
        num_before = len(self._cluster.recovery_records)
        outputs: queue.SimpleQueue[tuple[float, Output | TbclusterError]] = queue.SimpleQueue()
        self._submit(self._request(PROMPT_TOKENS, NUM_TOKENS), outputs)
        for _ in range(KILLED_AT):
            _taken(outputs)
        harmed_at = harm()
        # Some were on their way before.
        while not self._is_after(next_at := _taken(outputs), num_before):
            pass
        wait_until(lambda: self._cluster.status().num_requests == 0, "the stream has ended")
        record = self._cluster.recovery_records[num_before]
        assert record.resumed_at is not None
        return Parts(
            detection=record.noticed_at - harmed_at,
            load=record.loaded_at - record.noticed_at,
            check=record.opened_at - record.loaded_at,
            prefill=record.resumed_at - record.opened_at,
            total=next_at - harmed_at,
            one_prefill=one_prefill,
        )

    def moved(self, *, is_back: bool) -> float:
        """How long requests were kept waiting, or would have been, when the stages were placed
        elsewhere the last time; 0 as long as they never were.

        Args:
            is_back: Whether to wait until they are where they were at first, or have left that.
        """
        wait_until(lambda: self._is_placed(is_back=is_back), "stages are moved", DEADLINE_S)
        records = self._cluster.recovery_records
        return records[-1].opened_at - records[-1].noticed_at if records else 0.0

    def _is_placed(self, *, is_back: bool) -> bool:
        is_ready = self._cluster.status().state is ClusterState.READY
        return is_ready and (self._nodes_now() == self._nodes) is is_back

    def _is_well(self) -> bool:
        return self._is_placed(is_back=True)

    def _nodes_now(self) -> list[str | None]:
        return [stage.node for stage in self._cluster.status().stages]

    def _is_after(self, at: float, num_before: int) -> bool:
        """Whether a token came once requests had gone on."""
        records = self._cluster.recovery_records
        return len(records) > num_before and at >= records[num_before].opened_at

    def _prefill_s(self, num_tokens: int) -> float:
        outputs: queue.SimpleQueue[tuple[float, Output | TbclusterError]] = queue.SimpleQueue()
        started = time.time()
        self._submit(self._request(num_tokens, 1), outputs)
        return _taken(outputs) - started

    def _request(self, num_prompt: int, num_tokens: int) -> Request:
        prompt = [2 + at % 250 for at in range(num_prompt)]
        request = self._cluster.make_request(prompt, max_tokens=num_tokens, cache_prompt=False)
        return replace(request, stop_tokens=frozenset())

    def _submit(
        self, request: Request, outputs: "queue.SimpleQueue[tuple[float, Output | TbclusterError]]"
    ) -> None:
        self._cluster.submit(request, lambda output: outputs.put((time.time(), output)))


def _taken(outputs: "queue.SimpleQueue[tuple[float, Output | TbclusterError]]") -> float:
    """When the next token came."""
    at, output = outputs.get(timeout=DEADLINE_S)
    if isinstance(output, TbclusterError):
        raise output
    return at


def kill_worker(cluster: Cluster, stage: int) -> float:
    """kill -9 of a stage's worker; when."""
    os.kill(cluster.status().stages[stage].pid, signal.SIGKILL)
    return time.time()


class RackRounds(LineProcess):
    """A coordinator in a process of its own, on the head node of a rack whose agents run."""

    def __init__(self, rack: FaultRack, places: Sequence[tuple[str, int, int]]) -> None:
        prefix, env = rack.network.command(HEAD), rack.env(HEAD)
        super().__init__(__name__, str(rack.model), json.dumps(places), prefix=prefix, env=env)

    def run(self, harm: Callable[[], float] | None) -> Parts:
        """One round; without a harm the coordinator kills a worker."""
        self.write("kill" if harm is None else "wait")
        if harm is not None:
            self.read()
            self.write(json.dumps(harm()))
        return Parts(**self.read())

    def moved(self, *, is_back: bool) -> float:
        """See `Rounds`."""
        self.write(MOVED[is_back])
        seconds: float = self.read()
        return seconds


def main() -> None:
    """Serve rounds: a line of input for each."""
    model, places = sys.argv[1:]
    placed = [PlacedRange(node, StageRange(start, end)) for node, start, end in json.loads(places)]
    with Rack() as rack, Cluster(model, rack=rack, placed=placed) as cluster:
        rounds = Rounds(cluster)

        def be_harmed() -> float:
            _say(0.0)
            harmed_at: float = json.loads(sys.stdin.readline())
            return harmed_at

        for line in sys.stdin:
            if line.strip() in MOVED:
                _say(rounds.moved(is_back=line.strip() == MOVED[True]))
                continue
            kills = line.strip() == "kill"
            parts = rounds.run((lambda: kill_worker(cluster, 1)) if kills else be_harmed)
            _say(asdict(parts))


def _say(content: object) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
