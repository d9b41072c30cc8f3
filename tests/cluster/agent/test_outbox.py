from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.agent.outbox import Outbox
from tbcluster.wire.control import Bound, Loading
from tbcluster.wire.rack import WorkerEnded, WorkerSaid, WorkerStarted

NEWS = [
    WorkerStarted("a", 7),
    WorkerSaid("a", Bound(4711)),
    WorkerSaid("a", Loading(1, 2)),
    WorkerEnded("a", "was killed by signal 9"),
]


def test_all_is_kept_until_it_was_heard() -> None:
    outbox = Outbox()
    sent = [outbox.add(news) for news in NEWS]
    assert [message.serial for message in sent] == [1, 2, 3, 4]
    assert sent[1] == WorkerSaid("a", Bound(4711), serial=2)
    outbox.heard(0)
    assert outbox.unheard() == tuple(sent)
    outbox.heard(2)
    assert outbox.unheard() == tuple(sent[2:])
    outbox.heard(1)
    assert outbox.unheard() == tuple(sent[2:])
    outbox.heard(99)
    assert outbox.unheard() == ()


def test_another_coordinator_begins_anew() -> None:
    outbox = Outbox()
    outbox.add(NEWS[0])
    outbox.begin()
    assert outbox.unheard() == ()
    assert outbox.add(NEWS[1]).serial == 1


@given(st.lists(st.one_of(st.sampled_from(["say", "beat", "lose"])), max_size=60))
def test_a_coordinator_that_skips_what_it_knows_hears_all_once_and_in_order(
    events: list[str],
) -> None:
    """The connection breaks at any time, and loses what was on its way."""
    outbox, wire, heard, said = Outbox(), [], [], 0
    for event in [*events, "lose", "beat"]:
        match event:
            case "say":
                said += 1
                wire.append(outbox.add(WorkerSaid("a", Bound(said))))
            case "beat":
                for message in wire:
                    if message.serial > len(heard):
                        heard.append(message)
                wire.clear()
                outbox.heard(len(heard))
            case "lose":
                wire[:] = outbox.unheard()
    assert [message.report.port for message in heard] == list(range(1, said + 1))
    assert outbox.unheard() == ()
