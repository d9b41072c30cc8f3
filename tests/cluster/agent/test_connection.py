from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tbcluster.cluster.agent.connection import (
    ABSENCE_S,
    BEAT_S,
    FIRST_PAUSE_S,
    GREETING_S,
    LONGEST_PAUSE_S,
    LONGEST_URGENT_PAUSE_S,
    LOST_AFTER_S,
    REFUSED_PAUSE_S,
    Action,
    Beat,
    Connect,
    Connection,
    Disconnect,
    Greet,
    LinkState,
    Note,
    Obey,
    ReleaseWorkers,
    Resend,
    Search,
    Settle,
    StopWorkers,
)
from tbcluster.wire.rack import (
    CoordinatorBeat,
    FromCoordinator,
    Goodbye,
    Inspect,
    Refused,
    Welcome,
    WhoAreYou,
)

HERE, THERE = "192.0.2.1:1", "192.0.2.2:1"
WELCOME = Welcome("first", "rack", "mini2")
AGAIN = Welcome("second", "rack", "mini2")
BEAT = CoordinatorBeat()


def connection(random: float = 1.0) -> Connection:
    return Connection(lambda: random)


def connected(now: float = 0.0, welcome: Welcome = WELCOME) -> Connection:
    one = connection()
    assert one.passed(now) == [Search()]
    assert one.found(now, [HERE]) == [Connect(HERE)]
    assert one.heard(now, welcome) == [Settle(HERE, welcome)]
    return one


def reconnect(one: Connection, now: float, welcome: Welcome) -> list[Action]:
    """What happens at the Welcome."""
    assert Search() in one.passed(now)
    assert one.found(now, [HERE]) == [Connect(HERE)]
    return one.heard(now, welcome)


def test_a_connection_begins_with_a_search_and_a_greeting() -> None:
    one = connection()
    assert one.next_at() <= 0
    assert one.passed(0.0) == [Search()]
    assert one.passed(100.0) == []  # it is under way
    assert one.found(100.0, [HERE, THERE]) == [Connect(HERE)]
    assert one.state is LinkState.GREETING
    assert one.heard(101.0, BEAT) == []  # not yet
    assert one.heard(101.0, WELCOME) == [Settle(HERE, WELCOME)]
    assert one.state is LinkState.CONNECTED


def test_the_next_address_is_greeted_when_one_is_silent_or_fails() -> None:
    one = connection()
    one.passed(0.0)
    one.found(0.0, [HERE, THERE, "third:1"])
    assert one.next_at() == GREETING_S
    disconnect, note, connect = one.passed(GREETING_S)
    assert (disconnect, connect) == (Disconnect(), Connect(THERE))
    assert isinstance(note, Note)
    assert "192.0.2.1:1 answers, but" in note.text
    assert one.failed(4.0) == [Connect("third:1")]
    assert one.failed(5.0) == []
    assert one.state is LinkState.SEARCHING
    assert one.passed(5.0) == []
    assert one.passed(5.0 + LONGEST_PAUSE_S) == [Search()]


def test_pauses_grow_and_are_random() -> None:
    for random in (0.0, 0.5, 1.0):
        one = connection(random)
        now, pauses = 0.0, []
        for _ in range(50):
            assert one.passed(now) == [Search()]
            one.found(now, [])
            pauses.append(round(one.next_at() - now, 6))
            now = one.next_at()
        assert pauses == sorted(pauses)
        assert pauses[0] <= 2 * FIRST_PAUSE_S
        assert min(pauses) >= FIRST_PAUSE_S
        longest = FIRST_PAUSE_S + random * (LONGEST_PAUSE_S - FIRST_PAUSE_S)
        assert abs(pauses[-1] - longest) < 1e-6


def test_a_connection_resets_the_pauses() -> None:
    one = connection()
    for now in (0.0, 10.0, 20.0, 30.0):
        one.passed(now)
        one.found(now, [])
    assert reconnect(one, 40.0, WELCOME) == [Settle(HERE, WELCOME)]
    one.passed(50.0)
    assert one.passed(50.0) == [Search()]
    one.found(50.0, [])
    assert one.next_at() <= 50.0 + 2 * FIRST_PAUSE_S


def test_it_beats_as_long_as_the_coordinator_does() -> None:
    one = connected()
    beats = []
    for step in range(1, 100):
        now = step * 0.1
        one.heard(now, BEAT)
        beats += [now for action in one.passed(now) if action == Beat()]
    assert 18 <= len(beats) <= 21
    assert all(later - former >= BEAT_S - 1e-6 for former, later in pairwise(beats))


def test_what_it_is_told_is_passed_on_only_while_connected() -> None:
    one = connected()
    assert one.heard(1.0, Inspect()) == [Obey(Inspect())]
    one.passed(1.0 + LOST_AFTER_S)
    assert one.heard(5.0, Inspect()) == []


def test_silence_is_a_loss_and_any_word_is_none() -> None:
    one = connected()
    one.heard(2.9, Inspect())
    assert one.passed(3.0) == [Beat()]
    lost = one.passed(2.9 + LOST_AFTER_S)
    assert lost[0] == Disconnect()
    assert isinstance(lost[1], Note)
    assert "silent for 3 s" in lost[1].text
    assert one.passed(6.0) == [Search()]


def test_a_connection_that_takes_nothing_is_a_loss() -> None:
    one = connected()
    assert one.broke(1.0)[0] == Disconnect()
    assert one.broke(1.0) == []
    assert one.passed(1.0) == [Search()]


def test_a_goodbye_is_a_loss_without_a_wait() -> None:
    one = connected()
    ended = f"the coordinator at {HERE} ended"
    assert one.heard(1.0, Goodbye()) == [StopWorkers(ended), Disconnect(), Note(ended)]
    assert not one.is_welcome
    assert one.passed(1.0) == []  # its port may still be open
    assert one.passed(1.0 + FIRST_PAUSE_S) == [Search()]
    one.found(1.5, [])
    # There is nothing left to end.
    assert one.passed(1.0 + ABSENCE_S) == [Search()]


def test_one_that_says_that_another_follows_leaves_its_workers() -> None:
    one = connected()
    ended = f"the coordinator at {HERE} ended"
    release = [ReleaseWorkers(ended), Disconnect(), Note(ended)]
    assert one.heard(1.0, Goodbye(keeps_workers=True)) == release
    one.passed(2.0)
    one.found(2.0, [])
    assert any(isinstance(action, StopWorkers) for action in one.passed(1.0 + ABSENCE_S))


def test_who_asks_for_it_is_greeted_again_once() -> None:
    one = connected()
    assert one.heard(2.0, WhoAreYou()) == [Greet()]
    assert not one.is_welcome
    assert one.heard(2.0 + BEAT_S / 2, WhoAreYou()) == []
    assert one.state is LinkState.CONNECTED
    assert one.passed(2.1) == [Beat()]
    assert one.heard(2.0 + BEAT_S, WhoAreYou()) == [Greet()]  # the first one was lost
    assert one.heard(3.0, WELCOME) == [Resend()]
    assert one.is_welcome


def test_another_coordinator_at_the_same_address_finds_the_workers_free() -> None:
    one = connected()
    one.heard(1.0, WhoAreYou())
    release, settle = one.heard(1.1, AGAIN)
    assert isinstance(release, ReleaseWorkers)
    assert settle == Settle(HERE, AGAIN)
    assert one.heard(1.2, AGAIN) == [Resend()]


def test_a_hello_that_changed_is_said_to_whoever_listens() -> None:
    one = connection()
    assert one.greet_again(0.0) == []
    one = connected()
    assert one.greet_again(1.0) == [Greet()]
    assert not one.is_welcome
    assert one.heard(1.0, Inspect()) == [Obey(Inspect())]
    assert one.heard(1.1, WELCOME) == [Resend()]


def test_one_that_is_missed_is_looked_for_without_long_pauses() -> None:
    one = connected()
    one.passed(LOST_AFTER_S)
    now = LOST_AFTER_S
    for _ in range(20):
        one.passed(now)
        one.found(now, [])
        assert one.next_at() - now <= LONGEST_URGENT_PAUSE_S + 1e-6
        now = one.next_at()


def test_whoever_says_goodbye_before_a_welcome_is_left() -> None:
    one = connection()
    one.passed(0.0)
    one.found(0.0, [HERE])
    assert Disconnect() in one.heard(0.5, Goodbye())
    assert one.state is LinkState.SEARCHING
    assert one.passed(0.5 + ABSENCE_S) == [Search()]  # there are no workers to end


def test_the_same_coordinator_is_told_what_it_missed() -> None:
    one = connected()
    one.passed(LOST_AFTER_S)
    assert reconnect(one, 5.0, WELCOME) == [Settle(HERE, WELCOME), Resend()]


def test_workers_of_a_coordinator_that_was_started_again_are_free_first() -> None:
    one = connected()
    one.passed(LOST_AFTER_S)
    release, settle = reconnect(one, 5.0, AGAIN)
    assert isinstance(release, ReleaseWorkers)
    assert settle == Settle(HERE, AGAIN)


def test_workers_are_ended_once_when_nobody_comes_back() -> None:
    one = connected()
    one.passed(LOST_AFTER_S)
    one.passed(LOST_AFTER_S)
    assert one.next_at() == ABSENCE_S
    (stop,) = one.passed(ABSENCE_S)
    assert isinstance(stop, StopWorkers)
    assert one.passed(2 * ABSENCE_S) == []
    now = 3 * ABSENCE_S
    one.found(now, [HERE])
    assert one.heard(now, WELCOME) == [Settle(HERE, WELCOME), Resend()]


def test_absence_counts_from_the_last_word_through_failed_attempts() -> None:
    one = connected()
    one.passed(LOST_AFTER_S)
    now, actions = LOST_AFTER_S, list[Action]()
    while now < ABSENCE_S:
        now = min(max(now, one.next_at()), ABSENCE_S)
        for action in one.passed(now):
            actions.append(action)
            if action == Search():
                actions += one.found(now, [HERE])  # which never greets
    assert sum(isinstance(action, StopWorkers) for action in actions) == 1


def test_a_refusal_is_told_once_and_asked_again_slowly() -> None:
    one = connection()
    one.passed(0.0)
    one.found(0.0, [HERE, THERE])
    assert one.heard(0.0, Refused("other version")) == [
        Disconnect(),
        Note("refused: other version", is_error=True),
    ]
    assert one.state is LinkState.REFUSED
    assert one.next_at() == REFUSED_PAUSE_S
    assert one.passed(REFUSED_PAUSE_S) == []
    now = REFUSED_PAUSE_S
    assert reconnect(one, now, Refused("other version")) == [Disconnect()]  # type: ignore[arg-type]
    one.passed(now + REFUSED_PAUSE_S)
    told = reconnect(one, now + REFUSED_PAUSE_S, Refused("revoked"))  # type: ignore[arg-type]
    assert told == [Disconnect(), Note("refused: revoked", is_error=True)]


def test_a_node_that_is_revoked_while_connected_ends_its_workers() -> None:
    one = connected()
    one.heard(1.0, BEAT)
    actions = one.heard(2.0, Refused("revoked"))
    assert one.state is LinkState.REFUSED
    assert any(isinstance(action, StopWorkers) for action in actions)
    assert not one.is_welcome


MESSAGES = st.sampled_from(
    [
        WELCOME,
        AGAIN,
        BEAT,
        Goodbye(),
        Goodbye(keeps_workers=True),
        WhoAreYou(),
        Inspect(),
        Refused("no"),
    ]
)
EVENTS = st.lists(
    st.tuples(
        st.floats(0, 4),
        st.one_of(
            MESSAGES,
            st.just("failed"),
            st.just("broke"),
            st.just("pass"),
            st.lists(st.sampled_from([HERE, THERE]), max_size=3).map(tuple),
        ),
    ),
    max_size=60,
)


class Follower:
    """Performs actions as the agent does, and checks that each comes when it may."""

    def __init__(self) -> None:
        self.connection = connection(0.5)
        self.is_open = self.is_settled = self.is_searching = False
        self.num_searches = 0

    def follow(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Search():
                    assert not self.is_searching
                    self.is_searching = True
                    self.num_searches += 1
                case Connect():
                    assert not self.is_open
                    self.is_open = True
                case Disconnect():
                    assert self.is_open
                    self.is_open = self.is_settled = False
                case Settle():
                    assert self.is_open
                    self.is_settled = True
                case Greet():
                    assert self.is_open
                case Beat() | Resend() | Obey():
                    assert self.is_settled
        assert self.is_settled or not self.connection.is_welcome

    def take(self, now: float, event: FromCoordinator | str | tuple[str, ...]) -> None:
        match event:
            case "failed" if self.is_open and not self.is_settled:
                self.is_open = False
                self.follow(self.connection.failed(now))
            case "broke":
                self.follow(self.connection.broke(now))
            case tuple() if self.is_searching:
                self.is_searching = False
                self.follow(self.connection.found(now, event))
            case str() | tuple():
                pass
            case _ if self.is_open:
                self.follow(self.connection.heard(now, event))
        for _ in range(3):
            self.follow(self.connection.passed(now))
        assert self.connection.next_at() > now


@given(EVENTS)
def test_whatever_happens_it_comes_back_to_searching(
    events: list[tuple[float, FromCoordinator | str | tuple[str, ...]]],
) -> None:
    follower, now = Follower(), 0.0
    for pause_s, event in events:
        now += pause_s
        follower.take(now, event)
    before, silence_began = follower.num_searches, now
    while follower.num_searches == before:
        if follower.is_searching:
            follower.take(now, ())
        now = max(now, follower.connection.next_at())
        assert now - silence_began < ABSENCE_S + REFUSED_PAUSE_S
        follower.take(now, "pass")
