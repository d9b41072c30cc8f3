"""What recoveries there were, and how long each took."""

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

# So many of the last ones are kept.
KEPT = 256


class RecoveryKind(StrEnum):
    """What brought the stages back."""

    # In order of what they cost.
    REROUTE = "reroute"  # the same workers were connected anew
    RESTART = "restart"  # workers were started again on their nodes
    REPLAN = "replan"  # other nodes, or other layers on them


@dataclass(frozen=True, slots=True)
class RecoveryRecord:
    """One recovery; times are Unix seconds.

    Attributes:
        why: What was lost, in words.
        noticed_at: When requests were paused.
        loaded_at: When all stages took steps again.
        opened_at: When the output was checked and requests went on.
        resumed_at: When the first of them had its next token; None as long as none has.
        epoch: That it began.
    """

    kind: RecoveryKind
    why: str
    noticed_at: float
    loaded_at: float
    opened_at: float
    epoch: int
    resumed_at: float | None = None


class RecoveryBook:
    """The recoveries of one replica. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._records: deque[RecoveryRecord] = deque(maxlen=KEPT)
        self._counts: Counter[RecoveryKind] = Counter()
        self._total_s = 0.0
        self._noticed_at: float | None = None
        self._why = ""
        self._kind = RecoveryKind.REROUTE
        self._loaded_at = 0.0

    def noticed(self, why: str) -> None:
        """Something was lost; what follows from it before requests go on is the same recovery."""
        with self._lock:
            if self._noticed_at is None:
                self._noticed_at, self._why = time.time(), why
                self._kind = RecoveryKind.REROUTE

    def does(self, kind: RecoveryKind) -> None:
        """What is being done; the most that is done gives the recovery its name."""
        with self._lock:
            self._kind = max(self._kind, kind, key=list(RecoveryKind).index)

    def loaded(self) -> None:
        """All stages take steps."""
        with self._lock:
            self._loaded_at = time.time()

    def opened(self, epoch: int) -> None:
        """Requests go on."""
        with self._lock:
            if self._noticed_at is None:
                return
            now = time.time()
            record = RecoveryRecord(
                self._kind, self._why, self._noticed_at, self._loaded_at, now, epoch
            )
            self._records.append(record)
            self._counts[self._kind] += 1
            self._total_s += now - self._noticed_at
            self._noticed_at = None

    def resumed(self, epoch: int) -> None:
        """The first token of an epoch has come."""
        with self._lock:
            if self._records and self._records[-1].epoch == epoch:
                self._records[-1] = replace(self._records[-1], resumed_at=time.time())

    @property
    def records(self) -> tuple[RecoveryRecord, ...]:
        """The last ones, oldest first."""
        with self._lock:
            return tuple(self._records)

    @property
    def counts(self) -> Mapping[RecoveryKind, int]:
        """All there were."""
        with self._lock:
            return dict(self._counts)

    @property
    def total_s(self) -> float:
        """For how long requests were paused, all in all."""
        with self._lock:
            return self._total_s
