"""A rack without multicast: its nodes are found by list, and have two ways between them."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.doubles.capture import Capture
from tests.doubles.namespaces import End, needs_namespaces
from tests.doubles.waiting import wait_until
from tests.rack.racks import NUM_HIDDEN_BYTES, NUM_TOKENS, Answers, ListedRack, check_answers

pytestmark = needs_namespaces
GONE = "two does not answer any more"


def test_hidden_states_take_the_faster_way_and_the_other_once_that_is_cut(
    listed_rack: ListedRack, answers: Answers
) -> None:
    network, fast, slow = listed_rack.network, listed_rack.fast["two"], listed_rack.slow["two"]
    with (
        Capture(network, "two", fast.interface) as on_fast,
        Capture(network, "two", slow.interface) as on_slow,
    ):
        check_answers(listed_rack, answers)
    assert on_fast.num_bytes > NUM_HIDDEN_BYTES > 5 * on_slow.num_bytes
    # Running requests may end with an error; new ones take the other way.
    with cut(listed_rack, fast), Capture(network, "two", slow.interface) as on_slow:
        await_success(listed_rack, answers)
        check_answers(listed_rack, answers)
    assert on_slow.num_bytes > NUM_HIDDEN_BYTES
    await_success(listed_rack, answers)


def test_a_node_that_was_cut_off_takes_part_again(
    listed_rack: ListedRack, answers: Answers
) -> None:
    coordinator = listed_rack.services["head"]
    num_lost = coordinator.output.count(GONE)
    with cut(listed_rack, listed_rack.fast["two"], listed_rack.slow["two"]):
        wait_until(lambda: coordinator.output.count(GONE) > num_lost, "it is missed")
    await_success(listed_rack, answers)


def test_a_cut_is_noticed_by_an_agent_that_was_started_again(
    listed_rack: ListedRack, answers: Answers
) -> None:
    """It has measured nothing itself: the links are known from before."""
    listed_rack.services["two"].kill()
    await_success(listed_rack, answers)
    with cut(listed_rack, listed_rack.fast["two"]):
        await_success(listed_rack, answers)
    await_success(listed_rack, answers)


@contextmanager
def cut(rack: ListedRack, *ends: End) -> Iterator[None]:
    """These cables are unplugged meanwhile."""
    for end in ends:
        rack.network.cut(end.node, end.interface)
    try:
        yield
    finally:
        for end in ends:
            rack.network.mend(end.node, end.interface)


def await_success(rack: ListedRack, answers: Answers) -> None:
    """Wait until a new request is answered."""
    prompt = min(answers, key=len)
    wait_until(lambda: rack.complete(prompt, NUM_TOKENS).is_success, "new requests are answered")
