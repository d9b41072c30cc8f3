"""What is known of the ways between nodes, and which of them are measured when."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.rack.link_book import (
    MAX_AGE_S,
    MEASURE_TIMEOUT_S,
    RETRY_S,
    LinkBook,
    MeasureQueue,
    Pair,
    decode_links,
    fingerprint,
)
from tbcluster.errors import NoPathError, WireError
from tbcluster.machine import Address, InterfaceKind, LinkView
from tests.doubles.nodes import interface, measurement

PAIR, BACK = ("a", "b"), ("b", "a")
FAST, SLOW = measurement("192.0.2.2"), measurement("198.51.100.2", interface="en1")
NOW = FAST.measured_at + 1.0
HERE, THERE = interface("en0", "192.0.2.1"), interface("en0", "192.0.2.2")


def book() -> LinkBook:
    made = LinkBook()
    made.record(PAIR, "print", (FAST, SLOW))
    return made


# The book


def test_the_best_is_the_first_that_answers() -> None:
    links = book()
    assert links.best(PAIR) == FAST
    assert links.addresses(PAIR) == ("192.0.2.2", "198.51.100.2")
    links.note_dead(PAIR, ["192.0.2.2"])
    assert links.best(PAIR) == SLOW
    assert links.addresses(PAIR) == ("198.51.100.2",)
    assert links.addresses(BACK) == ()
    assert not links.is_alive(PAIR, "192.0.2.2")
    links.note_dead(PAIR, ["192.0.2.2", "198.51.100.2"])
    with pytest.raises(NoPathError, match="no address answers"):
        links.best(PAIR)
    links.note_dead(PAIR, [])
    assert links.best(PAIR) == FAST


def test_each_direction_is_a_link_of_its_own() -> None:
    links = book()
    with pytest.raises(NoPathError):
        links.best(BACK)
    links.record(BACK, "print", (SLOW,))
    links.note_dead(PAIR, ["198.51.100.2"])
    assert links.best(BACK) == SLOW


def test_a_new_measurement_forgets_what_was_dead() -> None:
    links = book()
    links.note_dead(PAIR, ["192.0.2.2"])
    links.record(PAIR, "print", (FAST,))
    assert links.best(PAIR) == FAST
    assert links.views() == (LinkView("a", "b", (FAST,)),)


def test_what_did_not_answer_at_all_has_no_path_and_is_measured_again() -> None:
    links = book()
    links.record(PAIR, "print", ())
    with pytest.raises(NoPathError):
        links.best(PAIR)
    assert not links.is_measured(PAIR, "print", NOW)


@pytest.mark.parametrize(
    ("pair", "print_", "wall", "expected"),
    [
        (PAIR, "print", NOW, True),
        (BACK, "print", NOW, False),
        (PAIR, "other", NOW, False),
        (PAIR, "print", FAST.measured_at + MAX_AGE_S - 1, True),
        (PAIR, "print", FAST.measured_at + MAX_AGE_S + 1, False),
    ],
)
def test_what_is_known_holds_for_a_while(
    pair: Pair, print_: str, wall: float, expected: bool
) -> None:
    assert book().is_measured(pair, print_, wall) is expected


def test_views_are_for_people() -> None:
    links = book()
    links.record(BACK, "print", (SLOW,))
    links.note_dead(PAIR, {"198.51.100.2", "192.0.2.2"})
    assert links.views() == (
        LinkView("a", "b", (FAST, SLOW), ("192.0.2.2", "198.51.100.2")),
        LinkView("b", "a", (SLOW,)),
    )


# From one run to the next


def test_what_was_measured_outlives_a_run_and_what_is_dead_does_not() -> None:
    links = book()
    links.record(BACK, "other", (replace(SLOW, round_trip_us=1.5),))
    links.note_dead(PAIR, ["192.0.2.2"])
    again = LinkBook(decode_links(links.encode()))
    assert again.encode() == links.encode()
    assert again.best(PAIR) == FAST
    assert again.is_measured(PAIR, "print", NOW)
    assert again.is_measured(BACK, "other", NOW)
    assert [view.dead for view in again.views()] == [(), ()]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[",
        b"[{}]",
        b'[{"source": 1}]',
        b"\xff\xfe",
        b"[" * 10_000,
        b'["\xff"]',
    ],
)
def test_garbage_is_no_list_of_links(content: bytes) -> None:
    with pytest.raises(WireError, match="no list of measured links"):
        decode_links(content)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_list_or_an_error(content: bytes) -> None:
    with suppress(WireError):
        assert isinstance(decode_links(content), list)


def test_no_links_are_a_list_too() -> None:
    assert decode_links(LinkBook().encode()) == []


# Fingerprints


@pytest.mark.parametrize(
    "changed",
    [
        replace(THERE, is_up=False),
        replace(THERE, addresses=(Address("192.0.2.3", 24),)),
        replace(THERE, addresses=(*THERE.addresses, Address("fe80::2", 64))),
        replace(THERE, addresses=(Address("192.0.2.2", 16),)),
        replace(THERE, name="en5"),
        replace(THERE, kind=InterfaceKind.THUNDERBOLT),
    ],
)
def test_another_interface_asks_for_a_new_measurement(changed: object) -> None:
    before = fingerprint([HERE], [THERE])
    assert fingerprint([HERE], [changed]) != before  # type: ignore[list-item]
    assert fingerprint([changed], [THERE]) != before  # type: ignore[list-item]


def test_a_cable_that_is_pulled_and_one_that_is_added_are_seen() -> None:
    assert fingerprint([HERE], [THERE]) != fingerprint([HERE], [])
    assert fingerprint([HERE], [THERE]) != fingerprint([HERE, THERE], [THERE])


def test_the_order_of_addresses_does_not_matter() -> None:
    two = (Address("192.0.2.2", 24), Address("fe80::2", 64))
    first = fingerprint([HERE], [replace(THERE, addresses=two)])
    assert first == fingerprint([HERE], [replace(THERE, addresses=two[::-1])])
    assert first == fingerprint(iter([HERE]), iter([replace(THERE, addresses=two)]))


# The queue


def test_a_node_measures_one_link_at_a_time() -> None:
    queue = MeasureQueue()
    for pair in (("a", "b"), ("b", "a"), ("a", "c"), ("c", "d"), ("d", "c")):
        queue.add(pair)
    assert queue.next(0.0) == [("a", "b"), ("c", "d")]
    assert queue.next(1.0) == []
    queue.done(("a", "b"))
    assert queue.next(2.0) == [("b", "a")]
    queue.done(("c", "d"))
    assert queue.next(3.0) == [("d", "c")]
    queue.done(("d", "c"))
    queue.done(("b", "a"))
    assert queue.next(4.0) == [("a", "c")]
    assert queue.is_waiting("abcd")
    queue.done(("a", "c"))
    assert not queue.is_waiting("abcd")


def test_what_is_wanted_twice_is_measured_once() -> None:
    queue = MeasureQueue()
    queue.add(PAIR)
    queue.add(PAIR)
    assert queue.next(0.0) == [PAIR]
    queue.add(PAIR)  # while it runs
    queue.done(PAIR)
    assert queue.next(1.0) == []
    queue.add(PAIR)  # and once more, after
    assert queue.next(2.0) == [PAIR]


def test_an_answer_that_does_not_come_blocks_nobody_for_ever() -> None:
    queue = MeasureQueue()
    queue.add(PAIR)
    queue.add(BACK)
    assert queue.next(0.0) == [PAIR]
    assert queue.next(MEASURE_TIMEOUT_S) == []
    assert queue.next(MEASURE_TIMEOUT_S + 0.1) == [BACK]


def test_a_link_without_a_way_is_measured_again() -> None:
    queue = MeasureQueue()
    queue.retry(PAIR)
    assert queue.next(0.0) == []
    assert not queue.is_waiting("ab")
    assert queue.next(RETRY_S) == [PAIR]
    queue.done(PAIR)
    assert queue.next(10 * RETRY_S) == []
    queue.retry(PAIR)
    queue.next(10 * RETRY_S)
    queue.drop("b")
    assert queue.next(20 * RETRY_S) == []


def test_a_node_that_is_gone_is_not_waited_for() -> None:
    queue = MeasureQueue()
    for pair in (PAIR, ("b", "c"), ("c", "d")):
        queue.add(pair)
    queue.next(0.0)
    queue.drop("a")
    assert queue.next(1.0) == []
    queue.done(("c", "d"))
    assert queue.next(2.0) == [("b", "c")]
    queue.drop("c")
    assert not queue.is_waiting("abcd")


def test_what_a_node_may_not_have_been_told_is_asked_again() -> None:
    queue = MeasureQueue()
    for pair in (PAIR, ("c", "d")):
        queue.add(pair)
    queue.next(0.0)
    queue.again("b")  # it is measured, and need not know
    queue.again("d")
    assert queue.next(1.0) == []
    queue.again("a")
    assert queue.is_waiting("ab")
    assert queue.next(2.0) == [PAIR]


def test_only_links_between_these_nodes_are_waited_for() -> None:
    queue = MeasureQueue()
    queue.add(PAIR)
    assert queue.is_waiting("ab")
    assert queue.is_waiting("abc")
    assert not queue.is_waiting("ac")
    queue.next(0.0)
    assert queue.is_waiting("ab")
    assert not queue.is_waiting("a")


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abcd"), st.sampled_from("abcd")),
        st.tuples(st.just("done"), st.integers(0, 5), st.just("")),
        st.tuples(st.sampled_from(["drop", "again"]), st.sampled_from("abcd"), st.just("")),
        st.tuples(st.just("pass"), st.sampled_from([1.0, MEASURE_TIMEOUT_S + 1]), st.just("")),
    ),
    max_size=60,
)


@given(EVENTS)
def test_each_wanted_link_is_measured_in_the_end_and_no_node_twice_at_once(
    events: list[tuple[str, object, str]],
) -> None:
    queue, now = MeasureQueue(), 0.0
    wanted: set[Pair] = set()
    running: dict[Pair, float] = {}

    def begin() -> None:
        nonlocal running
        running = {pair: at for pair, at in running.items() if now - at <= MEASURE_TIMEOUT_S}
        for pair in queue.next(now):
            assert pair in wanted
            wanted.remove(pair)
            assert not {node for one in running for node in one} & set(pair)
            running[pair] = now

    for kind, what, other in events:
        match kind:
            case "add" if what != other:
                pair = (str(what), other)
                queue.add(pair)
                wanted |= {pair} - running.keys()
            case "done" if running:
                pair = sorted(running)[int(str(what)) % len(running)]
                queue.done(pair)
                del running[pair]
            case "drop":
                queue.drop(str(what))
                wanted = {pair for pair in wanted if what not in pair}
                running = {pair: at for pair, at in running.items() if what not in pair}
            case "again":
                queue.again(str(what))
                lost = {pair for pair in running if pair[0] == what}
                wanted |= lost
                running = {pair: at for pair, at in running.items() if pair not in lost}
            case "pass":
                now += float(str(what))
        begin()
        assert queue.is_waiting("abcd") == bool(wanted or running)
    for _ in range(2 * 12):
        for pair in list(running):
            queue.done(pair)
            del running[pair]
        begin()
    assert not wanted
    assert not running
    assert not queue.is_waiting("abcd")
