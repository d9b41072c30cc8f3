"""Where an agent stands with its coordinator. Pure: events and times come in, actions go out.

    SEARCHING ──found──▶ GREETING ──Welcome──▶ CONNECTED
        ▲  ▲                │ │                    │
        │  └──no answer─────┘ └──Refused──▶ REFUSED│
        └─────nothing heard for 3 s, or Goodbye────┘   (and from REFUSED, after a while)

Each connection begins with a Hello, which is said again to whoever asks for it: another
coordinator may have come to the same address. Each wait has an end: whatever happens, the agent
comes back to searching.

Workers outlive a coordinator that is gone without a word. The next one finds them free.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tbcluster.wire.rack import FromCoordinator, Goodbye, Refused, Welcome, WhoAreYou

BEAT_S = 0.5
LOST_AFTER_S = 3.0
GREETING_S = 3.0
REFUSED_PAUSE_S = 10.0
# Between two searches that found nobody; each is a random share of the longest one's time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
# The same as long as workers wait for a coordinator, whose clients wait for it, too.
LONGEST_URGENT_PAUSE_S = 0.4
# For how long workers wait for a coordinator that is away, before their memory is given back.
ABSENCE_S = 120.0


class LinkState(StrEnum):
    """Where the agent stands."""

    SEARCHING = "searching"
    GREETING = "greeting"
    CONNECTED = "connected"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Search:
    """Find addresses that answer; `Connection.found` is told them."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection to this address and say Hello."""

    address: str


@dataclass(frozen=True, slots=True)
class Greet:
    """Say Hello again, over the connection that there is."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Say that the agent is there."""


@dataclass(frozen=True, slots=True)
class Settle:
    """The connection stands: remember its address."""

    address: str
    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Resend:
    """Say again what the coordinator may not have heard."""


@dataclass(frozen=True, slots=True)
class StopWorkers:
    """End all workers, free ones too; their ends are told to the coordinator that started them."""

    why: str


@dataclass(frozen=True, slots=True)
class ReleaseWorkers:
    """The workers belong to a coordinator that is gone: errands end, stage workers are free for
    another one, which is told nothing of all this."""

    why: str


@dataclass(frozen=True, slots=True)
class Obey:
    """Do what the coordinator says."""

    message: FromCoordinator


@dataclass(frozen=True, slots=True)
class Note:
    """A line for the log."""

    text: str
    is_error: bool = False


Action = (
    Search
    | Connect
    | Greet
    | Disconnect
    | Beat
    | Settle
    | Resend
    | StopWorkers
    | ReleaseWorkers
    | Obey
    | Note
)


class Connection:
    """The state machine.

    Args:
        random: Gives a number from 0 to 1.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self.state = LinkState.SEARCHING
        # Whether it is known who is listening; workers are spoken of to nobody else.
        self.is_welcome = False
        self._is_searching = False
        self._num_searches = 0  # in vain, since the last connection
        self._search_at = float("-inf")
        self._candidates: deque[str] = deque()
        self._address = ""
        self._heard_at = self._beat_at = self._greeted_at = self._refused_at = 0.0
        self._refused_because = self._silent_address = ""
        self._incarnation: str | None = None
        self._absent_since: float | None = None

    def next_at(self) -> float:
        """When `passed` has to be called at the latest."""
        if self._absent_since is None:
            return self._next_step_at()
        return min(self._next_step_at(), self._absent_since + ABSENCE_S)

    def passed(self, now: float) -> list[Action]:
        """Time has passed."""
        return [*self._give_up(now), *self._step(now)]

    def found(self, now: float, addresses: Sequence[str]) -> list[Action]:
        """A search has ended: these addresses answer, best first."""
        self._is_searching = False
        if self.state is not LinkState.SEARCHING:
            return []
        self._candidates = deque(addresses)
        return self._greet_next(now)

    def failed(self, now: float) -> list[Action]:
        """The connection could not be opened."""
        return self._greet_next(now) if self.state is LinkState.GREETING else []

    def broke(self, now: float) -> list[Action]:
        """The connection takes no more messages."""
        if self.state is not LinkState.CONNECTED:
            return []
        return self._lose(now, "it takes no more messages")

    def greet_again(self, now: float) -> list[Action]:
        """What the last Hello said has changed."""
        if self.state not in (LinkState.GREETING, LinkState.CONNECTED):
            return []
        self._greeted_at = now
        self.is_welcome = False
        return [Greet()]

    def heard(self, now: float, message: FromCoordinator) -> list[Action]:
        """A message came over the connection."""
        if self.state not in (LinkState.GREETING, LinkState.CONNECTED):
            return []
        if isinstance(message, Refused):
            return self._refuse(now, message.reason)
        self._heard_at = now
        match message:
            case Goodbye(keeps_workers=keeps_workers):
                return self._part(now, keeps_workers=keeps_workers)
            case WhoAreYou():
                # It asks at each message that waited for it; one answer is enough.
                is_answered = now < self._greeted_at + BEAT_S
                return [] if is_answered else self.greet_again(now)
            case Welcome():
                return self._settle(now, message)
            case _:
                return [Obey(message)] if self.state is LinkState.CONNECTED else []

    def _next_step_at(self) -> float:
        match self.state:
            case LinkState.SEARCHING:
                return float("inf") if self._is_searching else self._search_at
            case LinkState.GREETING:
                return self._greeted_at + GREETING_S
            case LinkState.CONNECTED:
                return min(self._beat_at, self._heard_at + LOST_AFTER_S)
            case LinkState.REFUSED:
                return self._refused_at + REFUSED_PAUSE_S

    def _step(self, now: float) -> list[Action]:
        if now < self._next_step_at():
            return []
        match self.state:
            case LinkState.SEARCHING:
                self._is_searching = True
                return [Search()]
            case LinkState.GREETING:
                return [Disconnect(), *self._stay_out(), *self._greet_next(now)]
            case LinkState.CONNECTED if now < self._heard_at + LOST_AFTER_S:
                self._beat_at = now + BEAT_S
                return [Beat()]
            case LinkState.CONNECTED:
                return self._lose(now, f"silent for {LOST_AFTER_S:.0f} s")
            case LinkState.REFUSED:
                return self._search(now)

    def _greet_next(self, now: float) -> list[Action]:
        if not self._candidates:
            self._num_searches += 1
            return self._search(now + self._pause_s())
        self.state = LinkState.GREETING
        self._greeted_at = now
        self._address = self._candidates.popleft()
        return [Connect(self._address)]

    def _search(self, at: float) -> list[Action]:
        self.state = LinkState.SEARCHING
        self.is_welcome = False
        self._search_at = at
        return []

    def _pause_s(self) -> float:
        # Doubled no more often than it takes to reach the longest.
        bound = LONGEST_PAUSE_S if self._absent_since is None else LONGEST_URGENT_PAUSE_S
        longest = min(bound, FIRST_PAUSE_S * (1 << min(self._num_searches, 10)))
        return FIRST_PAUSE_S + (longest - FIRST_PAUSE_S) * self._random()

    def _settle(self, now: float, welcome: Welcome) -> list[Action]:
        was_connected, self.state = self.state is LinkState.CONNECTED, LinkState.CONNECTED
        self.is_welcome = True
        self._num_searches = 0
        self._refused_because = self._silent_address = ""
        self._absent_since = None
        self._beat_at = now
        known, self._incarnation = self._incarnation, welcome.incarnation
        if known == welcome.incarnation:
            return [Resend()] if was_connected else [Settle(self._address, welcome), Resend()]
        actions: list[Action] = [Settle(self._address, welcome)]
        if known is None:
            return actions
        return [ReleaseWorkers("the coordinator was started again"), *actions]

    def _stay_out(self) -> list[Action]:
        is_new, self._silent_address = self._address != self._silent_address, self._address
        text = (
            f"{self._address} answers, but does not take this node in: it is no coordinator of "
            "this cluster, or this node was revoked (`tbcluster nodes` on the head node shows it)"
        )
        return [Note(text, is_error=True)] if is_new else []

    def _refuse(self, now: float, reason: str) -> list[Action]:
        self.state = LinkState.REFUSED
        self.is_welcome = False
        self._refused_at = now
        self._absent_since = None
        is_new, self._refused_because = reason != self._refused_because, reason
        actions: list[Action] = [Disconnect()]
        if self._incarnation is not None:
            # Nobody will come who could use them.
            actions.append(StopWorkers("this node was refused"))
        return [*actions, Note(f"refused: {reason}", is_error=True)] if is_new else actions

    def _lose(self, now: float, how: str) -> list[Action]:
        self._be_absent()
        self._search(now)
        return [Disconnect(), Note(f"lost the coordinator at {self._address}: {how}")]

    def _part(self, now: float, *, keeps_workers: bool) -> list[Action]:
        if keeps_workers:
            self._be_absent()
        # Not at once: its port may stay open for a moment.
        self._search(now + self._pause_s())
        ended = f"the coordinator at {self._address} ended"
        left: Action = ReleaseWorkers(ended) if keeps_workers else StopWorkers(ended)
        return [left, Disconnect(), Note(ended)]

    def _be_absent(self) -> None:
        if self.state is LinkState.CONNECTED:
            self._absent_since = self._heard_at

    def _give_up(self, now: float) -> list[Action]:
        if self._absent_since is None or now < self._absent_since + ABSENCE_S:
            return []
        self._absent_since = None
        why = f"the coordinator was away for more than {ABSENCE_S:.0f} s"
        return [StopWorkers(why)]
