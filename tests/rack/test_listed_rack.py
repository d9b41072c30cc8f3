"""A rack without multicast: its nodes are found by list, and have two ways between them."""

from tests.doubles.capture import Capture
from tests.doubles.namespaces import needs_namespaces
from tests.doubles.waiting import wait_until
from tests.rack.racks import NUM_HIDDEN_BYTES, NUM_TOKENS, Answers, ListedRack, check_answers

pytestmark = needs_namespaces


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
    network.cut("two", fast.interface)
    try:
        with Capture(network, "two", slow.interface) as on_slow:
            await_success(listed_rack, answers)
            check_answers(listed_rack, answers)
        assert on_slow.num_bytes > NUM_HIDDEN_BYTES
    finally:
        network.mend("two", fast.interface)
    await_success(listed_rack, answers)


def await_success(rack: ListedRack, answers: Answers) -> None:
    """Wait until a new request is answered."""
    prompt = min(answers, key=len)
    wait_until(lambda: rack.complete(prompt, NUM_TOKENS).is_success, "new requests are answered")
