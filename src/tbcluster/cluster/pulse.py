"""Whether a stage worker still works, from what it says and when. Pure: times come in.

Only time in which the watcher itself ran counts: after a machine's sleep, or when nothing on it got
any further, the worker has had no time to answer either.
"""

from dataclasses import dataclass

from tbcluster.wire.control import Beat, Loading, Ready, Report

# How often the watcher looks, in seconds, and how much of the time between two looks counts.
TICK_S = 0.5
MAX_TICK_S = 2 * TICK_S


@dataclass(frozen=True, slots=True)
class Patience:
    """For how many seconds a worker may say nothing before and after it is ready, and load without
    getting any further."""

    starting_s: float = 60.0
    """Imports, tokenizers and memory that is paged in can keep its threads from running."""
    ready_s: float = 5.0
    load_stall_s: float = 300.0


class Pulse:
    """That of one worker. `heard` may be called in another thread than `ticked`.

    Args:
        now: When the worker was started; times are of any clock that only goes on.
        step_limit_s: As in `StageSpec`.
    """

    def __init__(
        self, now: float, step_limit_s: float = 0.0, patience: Patience | None = None
    ) -> None:
        self.step_limit_s = step_limit_s
        self._patience = patience or Patience()
        self._ticked_at = now
        self._num_heard = 0
        self._beat = Beat(0)
        self._loaded_bytes = -1
        self._is_ready = False
        self._silence, self._step, self._load = _Unchanged(), _Unchanged(), _Unchanged()

    @property
    def is_ready(self) -> bool:
        """Whether all is loaded."""
        return self._is_ready

    def heard(self, report: Report) -> None:
        """The worker has said this."""
        self._num_heard += 1
        match report:
            case Beat():
                self._beat = report
            case Loading(loaded_bytes=loaded_bytes):
                self._loaded_bytes = loaded_bytes
            case Ready():
                self._is_ready = True

    def ticked(self, now: float) -> str | None:
        """Why the worker is to be killed, in words; None as long as it is well. To be called every
        `TICK_S`."""
        awake_s = min(max(0.0, now - self._ticked_at), MAX_TICK_S)
        self._ticked_at = now
        beat, limit_s, patience = self._beat, self.step_limit_s, self._patience
        silent_s = self._silence.see(self._num_heard, awake_s)
        step_s = self._step.see((beat.num_steps, beat.busy_s > 0), awake_s)
        load_s = self._load.see(self._loaded_bytes, awake_s)
        silence_limit_s = patience.ready_s if self._is_ready else patience.starting_s
        if silent_s >= silence_limit_s:
            return f"it did not answer for {silence_limit_s:g} s"
        # The worker's own clock goes on while nothing on the machine does.
        if 0 < limit_s < min(beat.busy_s, step_s):
            return f"a step took longer than {limit_s:g} s"
        if not self._is_ready and load_s >= patience.load_stall_s:
            return f"its loading got no further for {patience.load_stall_s:g} s"
        return None


class _Unchanged:
    """For how much of the watcher's time a value has been the same."""

    def __init__(self) -> None:
        self._value: object = None
        self._seconds = 0.0

    def see(self, value: object, awake_s: float) -> float:
        self._seconds = self._seconds + awake_s if value == self._value else 0.0
        self._value = value
        return self._seconds
