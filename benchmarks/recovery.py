"""From the loss of a worker, a node or the coordinator to the next token, and where the time goes.

A bar holds what is neither detection nor load nor one prefill. The model is small: with a large one
the load takes as long as its weights take to be read, and the rest stays.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

from benchmarks.harness import Bar, Report, note
from benchmarks.recovery_faults import FAULTS, rounds_of
from benchmarks.recovery_rounds import Parts, RackRounds
from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.faults.clients import new_http, pieces
from tests.doubles.faults.rack import HEAD, NODES, THREE, TWO, FaultRack
from tests.doubles.namespaces import Network, can_make_namespaces

SIZES = LlamaSizes(
    num_hidden_layers=6, hidden_size=256, intermediate_size=512, max_position_embeddings=10**9
)
PLACES = ((TWO, 0, 2), (THREE, 2, 4), (HEAD, 4, 6))
NUM_ROUNDS, QUICK_ROUNDS = 5, 1
# Of the second cable: the other one is taken as long as it is there.
SPARE_MBIT = 200
REST_BAR = Bar("<=", 0.5, "s")
KILLED_BAR, VANISHED_BAR = Bar("<=", 2.0, "s"), Bar("<=", 5.0, "s")
DETECTION = {"worker": KILLED_BAR, "all": KILLED_BAR}
RESTART_BAR = Bar("<=", 5.0, "s")

PARTS = {
    "worker": "kill -9 of a worker on one machine",
    "all": "kill -9 of all of them at once",
    "wedged": "SIGSTOP of one",
    "message": "a message between two of them is lost",
    "bytes": "bytes between two of them are corrupted",
    "bits": "bits flip in the weights of one, and it is examined",
    "rack": "kill -9 of a worker on a rack",
    "agent": "kill -9 of a node's agent, which the service manager starts again",
    "host": "a node's cable is pulled, and the others take over; and it comes back",
    "drain": "a node is drained, and taken back",
    "path": "one of two cables between the nodes is pulled",
    "coordinator": "kill -9 of the coordinator, which the service manager starts again",
}


def run(only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Measure the parts on this machine alone; those on a rack need root on Linux."""
    report = Report("recovery")
    num_rounds = QUICK_ROUNDS if quick else NUM_ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        model = write_llama(Path(folder) / "small", SIZES, with_tokenizer=True)
        for part in only or PARTS:
            if part in FAULTS:
                _measure_here(report, part, model, num_rounds)
                continue
            if not can_make_namespaces():
                sys.exit(f"bench: recovery {part} needs network namespaces: root on Linux")
            MEASURES[part](report, model, num_rounds)
    return report


def _measure_here(report: Report, part: str, model: Path, num_rounds: int) -> None:
    what, _ = FAULTS[part]
    _report_parts(report, what, rounds_of(part, model, num_rounds), DETECTION.get(part))


def _measure_rack(report: Report, model: Path, num_rounds: int) -> None:
    with _rack_rounds(model) as (_, rounds):
        measured = [rounds.run(None) for _ in range(num_rounds)]
    _report_parts(report, "worker killed on a rack", measured, KILLED_BAR)


def _measure_host(report: Report, model: Path, num_rounds: int) -> None:
    with _rack_rounds(model) as (rack, rounds):

        def cut() -> float:
            rack.cut(THREE)
            return time.time()

        measured, back = [], []
        for _ in range(num_rounds):
            measured.append(rounds.run(cut))
            rack.mend(THREE)
            back.append(rounds.moved(is_back=True))
    _report_parts(report, "node cut off", measured, VANISHED_BAR)
    _report_moved(report, "node that comes back", back)


def _measure_drain(report: Report, model: Path, num_rounds: int) -> None:
    with _rack_rounds(model) as (rack, rounds):
        drained, back = [], []
        for _ in range(num_rounds):
            rounds.moved(is_back=True)
            rack.tbcluster(HEAD, "drain", THREE)
            drained.append(rounds.moved(is_back=False))
            rack.tbcluster(HEAD, "undrain", THREE)
            back.append(rounds.moved(is_back=True))
    _report_moved(report, "node drained", drained)
    _report_moved(report, "node undrained", back)


def _measure_path(report: Report, model: Path, num_rounds: int) -> None:
    measured = []
    for _ in range(num_rounds):
        with Network() as network, FaultRack(network, model) as rack:
            for end in network.switch(*NODES):
                network.shape(end.node, end.interface, SPARE_MBIT)
            rack.start_agents()
            with RackRounds(rack, PLACES) as rounds:

                def cut(rack: FaultRack = rack) -> float:
                    rack.cut(THREE)
                    return time.time()

                measured.append(rounds.run(cut))
    _report_parts(report, "one of two paths cut", measured, VANISHED_BAR)


def _measure_agent(report: Report, model: Path, num_rounds: int) -> None:
    with _rack_rounds(model) as (rack, rounds):

        def kill() -> float:
            killed_at = time.time()
            rack.agents[THREE].kill()
            return killed_at

        measured = [rounds.run(kill) for _ in range(num_rounds)]
    _report_parts(report, "agent killed", measured, None)


def _measure_coordinator(report: Report, model: Path, num_rounds: int) -> None:
    options = [word for place in PLACES for word in ("--place", _place(*place))]
    with Network() as network, FaultRack(network, model, *options) as rack:
        rack.serve()
        pids = [stage["pid"] for stage in rack.stages()]
        times = [_restart_s(rack) for _ in range(num_rounds)]
        if [stage["pid"] for stage in rack.stages()] != pids:
            sys.exit("bench: stages were loaded again")
    _note_rounds("coordinator killed: first answer", times)
    answered_s = statistics.median(times)
    report.add("coordinator killed: first answer after its start", answered_s, "s", RESTART_BAR)


def _restart_s(rack: FaultRack) -> float:
    """From the start of a new coordinator to its first answer."""
    (asked, *_) = rack.eight(1)
    rack.coordinator.kill()
    # The service manager's own pause is over.
    started = time.monotonic()
    with rack.inside(), new_http(rack.url) as http:
        rack.await_ready()
        list(pieces(http, asked))
    return time.monotonic() - started


def _report_parts(
    report: Report, what: str, measured: Sequence[Parts], detection: Bar | None
) -> None:
    for part in fields(Parts):
        values = [getattr(parts, part.name) for parts in measured]
        _note_rounds(f"{what}: {part.name}", values)
        bar = detection if part.name == "detection" else None
        name = part.name.replace("_", " ")
        report.add(f"{what}: {name}", statistics.median(values), "s", bar)
    rests = [parts.rest for parts in measured]
    _note_rounds(f"{what}: rest", rests)
    report.add(f"{what}: rest", statistics.median(rests), "s", REST_BAR)


def _report_moved(report: Report, what: str, seconds: Sequence[float]) -> None:
    """What a stream would have waited for, but for its prefill."""
    _note_rounds(f"{what}: pause", seconds)
    report.add(f"{what}: load and check", statistics.median(seconds), "s")


def _note_rounds(what: str, values: Sequence[float]) -> None:
    note(f"{what}: {' '.join(f'{value:.2f}' for value in values)} s")


@contextmanager
def _rack_rounds(model: Path) -> Iterator[tuple[FaultRack, RackRounds]]:
    with Network() as network, FaultRack(network, model) as rack:
        rack.start_agents()
        with RackRounds(rack, PLACES) as rounds:
            yield rack, rounds


def _place(node: str, start: int, end: int) -> str:
    return f"{node}={start}-{end - 1}"


MEASURES: dict[str, Callable[[Report, Path, int], None]] = {
    "rack": _measure_rack,
    "agent": _measure_agent,
    "host": _measure_host,
    "drain": _measure_drain,
    "path": _measure_path,
    "coordinator": _measure_coordinator,
}
