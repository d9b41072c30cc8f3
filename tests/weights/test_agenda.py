"""Which pieces are fetched next, and from where, whatever happens."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbcluster.checkpoint import Span
from tbcluster.errors import FetchError
from tbcluster.weights.agenda import MAX_RUN_BYTES, MAX_RUNS, Agenda, Run
from tbcluster.weights.assigning import HUB

MB = 1024**2
PIECES = [Span("a", 16 * MB * number, 16 * MB) for number in range(20)]
NEIGHBOURS = ["one", "two"]


def everything(agenda: Agenda) -> list[Run]:
    """All that can be taken now, one after another."""
    runs = []
    while (run := agenda.take()) is not None:
        agenda.arrived(run.pieces)
        agenda.ended(run)
        runs.append(run)
    return runs


def test_runs_are_adjacent_and_bounded() -> None:
    gap = [piece for piece in PIECES if piece.offset != 5 * 16 * MB]
    agenda = Agenda(dict.fromkeys(gap, HUB), [])
    runs = []
    while (run := agenda.take()) is not None:
        runs.append(run)
    assert len(runs) == MAX_RUNS
    for run in runs:
        assert run.span.length == sum(piece.length for piece in run.pieces) <= MAX_RUN_BYTES
        assert all(one.end == other.offset for one, other in pairwise(run.pieces))
    for run in runs:
        agenda.arrived(run.pieces)
        agenda.ended(run)
    everything(agenda)
    assert agenda.is_done


def test_a_neighbours_pieces_wait_until_it_has_them() -> None:
    agenda = Agenda(dict.fromkeys(PIECES, "one"), NEIGHBOURS)
    assert agenda.take() is None
    assert agenda.awaited("one") == set(PIECES)
    assert agenda.offer("one", PIECES[:2])
    assert [piece for run in everything(agenda) for piece in run.pieces] == PIECES[:2]
    assert not agenda.is_done
    agenda.lose("one", "it is gone")
    assert {run.source for run in everything(agenda)} == {HUB}
    assert agenda.is_done


def test_what_another_neighbour_has_is_not_waited_for() -> None:
    agenda = Agenda(dict.fromkeys(PIECES, "one"), NEIGHBOURS)
    assert agenda.offer("two", PIECES[2:])
    assert {run.source for run in everything(agenda)} == {"two"}
    assert agenda.awaited("one") == set(PIECES[:2])


def test_without_a_hub_any_neighbour_may_have_it_one_day() -> None:
    agenda = Agenda(dict.fromkeys(PIECES, HUB), NEIGHBOURS)
    agenda.lose(HUB, "offline mode is on")
    assert agenda.take() is None
    agenda.offer("two", PIECES)
    assert {run.source for run in everything(agenda)} == {"two"}
    assert agenda.is_done


def test_unknown_sources_are_replaced() -> None:
    agenda = Agenda(dict.fromkeys(PIECES, "nobody"), [])
    assert {run.source for run in everything(agenda)} == {HUB}


def test_a_bad_piece_comes_from_elsewhere_and_the_rest_does_not() -> None:
    agenda = Agenda(dict.fromkeys(PIECES[:2], "one"), NEIGHBOURS)
    agenda.offer("one", PIECES)
    run = agenda.take()
    assert run is not None
    agenda.ended(run, bad=run.pieces[0])
    assert [found.source for found in everything(agenda)] == [HUB, "one"]


def test_what_is_offered_and_denied_twice_comes_from_elsewhere() -> None:
    agenda = Agenda(dict.fromkeys(PIECES[:1], "one"), NEIGHBOURS)
    agenda.offer("one", PIECES)
    for _ in range(2):
        run = agenda.take()
        assert run is not None
        assert run.source == "one"
        agenda.not_there(run)
    agenda.offer("one", PIECES)
    assert {found.source for found in everything(agenda)} == {HUB}
    assert agenda.is_done


def test_what_nobody_has_is_an_error_with_reasons() -> None:
    agenda = Agenda(dict.fromkeys(PIECES, "one"), ["one"])
    agenda.lose(HUB, "offline mode is on")
    with pytest.raises(FetchError, match="offline mode is on; it burns"):
        agenda.lose("one", "it burns")


@settings(max_examples=60, deadline=None)
@given(
    sources=st.dictionaries(st.sampled_from(PIECES), st.sampled_from([HUB, *NEIGHBOURS])),
    data=st.data(),
)
def test_all_arrives_once_whatever_fails(sources: dict[Span, str], data: st.DataObject) -> None:
    agenda = Agenda(sources, NEIGHBOURS)
    running: list[Run] = []
    arrived: list[Span] = []
    lost: set[str] = set()
    for _ in range(20):
        match data.draw(
            st.sampled_from(["take", "offer", "arrive", "break", "bad", "deny", "lose"])
        ):
            case "take":
                if (run := agenda.take()) is not None:
                    assert run.source not in lost
                    running.append(run)
            case "offer":
                offered = data.draw(st.lists(st.sampled_from(PIECES)))
                agenda.offer(data.draw(st.sampled_from(NEIGHBOURS)), offered)
            case "deny" if running:
                run = running.pop()
                if run.source != HUB:
                    agenda.not_there(run)
                else:
                    agenda.ended(run)
            case "lose" if len(lost) < 2:
                name = data.draw(st.sampled_from(NEIGHBOURS))
                lost.add(name)
                agenda.lose(name, "gone")
            case event if running:
                run = running.pop(data.draw(st.integers(0, len(running) - 1)))
                count = data.draw(st.integers(0, len(run.pieces))) if event != "arrive" else None
                agenda.arrived(run.pieces[:count])
                arrived += run.pieces[:count]
                rest = run.pieces[count:] if count is not None else ()
                is_bad = event == "bad" and bool(rest) and run.source != HUB
                agenda.ended(run, bad=rest[0] if is_bad else None)
    for run in running:
        agenda.ended(run)
    for name in NEIGHBOURS:
        if name not in lost:
            agenda.offer(name, PIECES)
    arrived += [piece for run in everything(agenda) for piece in run.pieces]
    assert agenda.is_done
    assert sorted(arrived) == sorted(sources)
