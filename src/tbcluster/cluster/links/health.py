"""When a path counts as dead, and when it is back (pure: times come in, seconds of any one clock).

A performer calls `answered` for what has come, then `pass_time`, then asks whether to ping.
"""

DEAD_AFTER_S = 2.5
# One answer may be the last gasp of a bad cable.
NUM_ANSWERS_TO_LIVE = 3
PING_EVERY_S = 1.0
# A path that comes back is worth knowing early.
PING_DEAD_EVERY_S = 0.5
# TCP waits ever longer between its attempts; a new connection begins with the shortest wait.
RECONNECT_EVERY_S = 2.0
# A connection that its other end turned away, since it had not heard of this node yet, is not tried
# again for three seconds: by then the path would count as dead.
FIRST_ANSWER_S = 0.8


class PathHealth:
    """What the pings of one path have shown. Alive at first: it was measured just now.

    Attributes:
        is_alive: Whether messages get across.
    """

    def __init__(self, now: float) -> None:
        self.is_alive = True
        self._pinged_at: float | None = None
        # The first ping since the last answer. Silence counts from here, so that a process that
        # was itself held up for seconds does not take its paths for dead.
        self._waiting_since: float | None = None
        self._num_answers = 0
        self._counted_at = now
        self._connected_at = now
        self._has_answered = False

    def answered(self, now: float) -> None:
        """An answer came. Several at once count as one: they waited in a queue."""
        self._waiting_since = None
        self._has_answered = True
        if self.is_alive or (self._num_answers and now - self._counted_at < PING_DEAD_EVERY_S / 2):
            return
        self._counted_at = now
        self._num_answers += 1
        if self._num_answers == NUM_ANSWERS_TO_LIVE:
            self.is_alive, self._num_answers = True, 0

    def pass_time(self, now: float) -> None:
        """See whether it has been silent for too long."""
        if self._waiting_since is not None and now - self._waiting_since > DEAD_AFTER_S:
            self.is_alive, self._num_answers = False, 0

    def wants_ping(self, now: float) -> bool:
        """Whether it is time for the next ping."""
        every_s = PING_EVERY_S if self.is_alive else PING_DEAD_EVERY_S
        return self._pinged_at is None or now - self._pinged_at >= every_s

    def pinged(self, now: float) -> None:
        """A ping was sent."""
        self._pinged_at = now
        if self._waiting_since is None:
            self._waiting_since = now

    def wants_connection(self, now: float) -> bool:
        """Whether a new connection is worth a try: it is dead, and the present one is no better;
        or the present one never gave an answer."""
        age_s = now - self._connected_at
        if self.is_alive:
            return not self._has_answered and age_s >= FIRST_ANSWER_S
        return not self._num_answers and age_s >= RECONNECT_EVERY_S

    def connected(self, now: float) -> None:
        """A new connection was begun; it is pinged at once."""
        self._connected_at = now
        self._has_answered = False
        self._pinged_at = None
