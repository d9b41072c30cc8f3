"""Steps of a made-up pipeline whose every time is known, as the stages would tell of them."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tbcluster.core import VisitTiming
from tbcluster.tracing.records import StepRecord

US_PER_S = 1e6


@dataclass(frozen=True)
class World:
    """What really happened.

    Attributes:
        clocks_us: What each stage's clock shows more than the coordinator's.
        records: What was noted of it.
        wires_us: Of each step, its way to each stage, and then the way back.
    """

    clocks_us: tuple[int, ...]
    records: tuple[StepRecord, ...]
    wires_us: tuple[tuple[int, ...], ...]


def step(
    step_id: int,
    sent_us: int,
    clocks_us: tuple[int, ...],
    wires_us: tuple[int, ...],
    computes_us: tuple[int, ...],
    request_ids: tuple[str, ...] = ("a",),
    epoch: int = 0,
) -> StepRecord:
    """A step that found every stage idle."""
    at, timings = sent_us, []
    for clock_us, wire_us, compute_us in zip(clocks_us, wires_us, computes_us, strict=False):
        began_us = at + wire_us
        at = began_us + compute_us
        timings.append(VisitTiming(compute_us, 1, began_us + clock_us, at + clock_us))
    back_us = at + wires_us[-1]
    return StepRecord(
        step_id,
        epoch,
        len(clocks_us),
        sent_us / US_PER_S,
        back_us / US_PER_S,
        False,
        len(request_ids),
        request_ids,
        tuple(timings),
        None,
    )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A few steps within one bucket of time, one after another."""
    num_stages = draw(st.integers(1, 4))
    # Machines that were started at other times, or the coordinator's own.
    elsewhere = st.integers(2_000_000, 10**12) | st.integers(-(10**12), -2_000_000) | st.just(0)
    clocks_us = tuple(draw(elsewhere) for _ in range(num_stages))
    wire, compute = st.integers(1, 2000), st.integers(0, 50_000)
    records, wires, now = [], [], 8_000_000
    for step_id in range(draw(st.integers(1, 5))):
        wires_us = tuple(draw(wire) for _ in range(num_stages + 1))
        computes_us = tuple(draw(compute) for _ in range(num_stages))
        records.append(step(step_id, now, clocks_us, wires_us, computes_us))
        wires.append(wires_us)
        now += sum(wires_us) + sum(computes_us) + 10
    return World(clocks_us, tuple(records), tuple(wires))
