"""Messages between stages that are lost, spoilt, repeated, reordered, or come from an old epoch: no
token is another for it."""

from collections.abc import Callable, Sequence

import pytest

from tbcluster.wire.messages import decode_step
from tests.chaos.scene import COORDINATOR, LAST, MIDDLE, TO_FIRST, Scene
from tests.chaos.streams import await_tokens, submitted
from tests.doubles.faults.relay import FrameRelay, Message, send_again
from tests.doubles.waiting import wait_until

ENOUGH = 5
BETWEEN, BACK = (0, MIDDLE), (LAST, COORDINATOR)


@pytest.mark.parametrize(
    ("hop", "spoil"),
    [
        (TO_FIRST, FrameRelay.lose),
        (BETWEEN, FrameRelay.lose),
        (BACK, FrameRelay.lose),
        (BETWEEN, FrameRelay.truncate),
        (BETWEEN, FrameRelay.garble),
        (BACK, FrameRelay.garble),
        (TO_FIRST, FrameRelay.repeat),
        (BETWEEN, FrameRelay.repeat),
        (BACK, FrameRelay.repeat),
        (BETWEEN, FrameRelay.reorder),
        (BACK, FrameRelay.reorder),
    ],
    ids=lambda part: part.__name__ if callable(part) else f"{part[0]} to {part[1]}",
)
def test_a_message_goes_wrong(
    stage: Scene, hop: tuple[int, int], spoil: Callable[[FrameRelay], None]
) -> None:
    relay = stage.places.relays[hop]
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    spoil(relay)
    wait_until(lambda: not relay.is_spoiling, "it has happened")
    stage.check(streams)


def test_messages_of_an_old_epoch_come_again(stage: Scene) -> None:
    """Whole steps with their tensors, each valid by itself: into every stage, and to the
    coordinator."""
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    old = {hop: list(relay.recorded) for hop, relay in stage.places.relays.items()}
    stage.kill(MIDDLE)
    stage.check(streams)
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    replay(stage, old)
    stage.check(streams)
    assert epochs(old[TO_FIRST]) < epochs(stage.places.relays[TO_FIRST].recorded)


def test_messages_of_the_same_epoch_come_again(stage: Scene) -> None:
    streams = submitted(stage.cluster)
    await_tokens(streams, ENOUGH)
    replay(stage, {hop: list(relay.recorded) for hop, relay in stage.places.relays.items()})
    stage.check(streams)


def replay(stage: Scene, recorded: dict[tuple[int, int], list[Message]]) -> None:
    for (_, target), messages in recorded.items():
        assert messages
        send_again(stage.places.inbound(target), messages)


def epochs(messages: Sequence[Message]) -> int:
    """The newest."""
    return max(decode_step(list(message)).epoch for message in messages)
