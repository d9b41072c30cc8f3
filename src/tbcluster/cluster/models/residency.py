"""Which models are loaded, which wait to be, and which have to go for them. Pure: no clock, no
thread, no memory but in numbers.

One model is loaded at a time, and only when none is leaving: two never fight for memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf


class ModelState(StrEnum):
    """Where a model stands."""

    UNLOADED = "unloaded"
    LOADING = "loading"  # or waiting for its turn
    LOADED = "loaded"
    UNLOADING = "unloading"  # or no longer to be loaded, and not yet given up


@dataclass(frozen=True, slots=True)
class Rules:
    """When models come and go by themselves.

    Attributes:
        loads_on_use: Whether a request loads the model that it names; idle ones make room for it,
            the one that was not used for longest first.
        max_loaded: Most models at once; None for as many as fit.
        idle_unload_s: A model that nobody used for so long is unloaded; None for never.
    """

    loads_on_use: bool = False
    max_loaded: int | None = None
    idle_unload_s: float | None = None


@dataclass(slots=True)
class Resident:
    """A model that is loaded.

    Attributes:
        taken: Bytes by the name of the node that holds them.
        num_uses: Requests that it is answering.
        used_at: When the last of them ended, on the caller's clock.
        keep_s: How long it may be idle, where a request has said so; infinity for as long as the
            server runs.
    """

    taken: Mapping[str, int]
    used_at: float
    num_uses: int = 0
    keep_s: float | None = None
    is_leaving: bool = False


@dataclass(slots=True)
class Residency:
    """All that is decided about models. Whoever holds it tells what happened and asks what next."""

    rules: Rules = field(default_factory=Rules)
    # Name -> whether idle models may be unloaded for it.
    _queue: dict[str, bool] = field(default_factory=dict)
    _loading: str | None = None
    _makes_room: bool = False
    _is_stopped: bool = False
    _loaded: dict[str, Resident] = field(default_factory=dict)

    # What is

    def state(self, name: str) -> ModelState:
        """Where a model stands. One that leaves and is wanted again is leaving."""
        if (resident := self._loaded.get(name)) is not None:
            return ModelState.UNLOADING if resident.is_leaving else ModelState.LOADED
        if name == self._loading:
            return ModelState.UNLOADING if self._is_stopped else ModelState.LOADING
        return ModelState.LOADING if name in self._queue else ModelState.UNLOADED

    @property
    def loaded(self) -> Mapping[str, Resident]:
        """The models in memory, those that are leaving included."""
        return self._loaded

    @property
    def loading(self) -> str | None:
        """The one that is being loaded."""
        return self._loading

    @property
    def is_any_wanted(self) -> bool:
        """Whether a model is being loaded, or waits for its turn."""
        return self._loading is not None or bool(self._queue)

    def taken(self, without: tuple[str, ...] = ()) -> dict[str, int]:
        """Bytes that models hold on each node."""
        total: dict[str, int] = {}
        for name, resident in self._loaded.items():
            for node, size in resident.taken.items() if name not in without else ():
                total[node] = total.get(node, 0) + size
        return total

    # Loading

    def ask(self, name: str, *, makes_room: bool) -> None:
        """Queue a model, behind those that wait already; one that is loaded is left as it is.

        Args:
            makes_room: Whether idle models may be unloaded for it.
        """
        is_being_loaded = name == self._loading and not self._is_stopped
        if is_being_loaded or self.state(name) is ModelState.LOADED:
            return
        self._queue[name] = self._queue.get(name, False) or makes_room

    def is_queued(self, name: str) -> bool:
        """Whether a model waits for its turn."""
        return name in self._queue

    def withdraw(self, name: str) -> bool:
        """Take a model out of the queue; False if it is not there."""
        return self._queue.pop(name, None) is not None

    def next_load(self) -> str | None:
        """The model whose turn it is; None while one is being loaded, or is leaving."""
        if self._loading is not None or self.is_any_leaving:
            return None
        return next(iter(self._queue), None)

    def begin(self, name: str) -> None:
        """Begin to load a queued model."""
        self._makes_room = self._queue.pop(name)
        self._loading = name
        self._is_stopped = False

    def stop(self) -> bool:
        """Give the load up that is under way; False if it is already."""
        was_stopped, self._is_stopped = self._is_stopped, True
        return not was_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether the load that is under way was given up."""
        return self._loading is not None and self._is_stopped

    @property
    def makes_room(self) -> bool:
        """Whether idle models may go for the one that is being loaded."""
        return self._makes_room

    def ways(self) -> list[tuple[str, ...]]:
        """How to make room for the one that is being loaded: each way is the models that have to
        go, those that let most stay first. There may be none."""
        most = self.rules.max_loaded
        num_too_many = 0 if most is None else max(0, len(self._loaded) + 1 - most)
        idle = self.idle() if self._makes_room else ()
        return [idle[:count] for count in range(num_too_many, len(idle) + 1)]

    def may_get_room(self) -> bool:
        """Whether there will be another way: once a model has left that is leaving, or one is idle
        that is busy now."""
        is_any_busy = any(resident.num_uses for resident in self._loaded.values())
        return self.is_any_leaving or (self._makes_room and is_any_busy)

    @property
    def is_any_leaving(self) -> bool:
        """Whether memory will be free in a moment."""
        return any(resident.is_leaving for resident in self._loaded.values())

    def in_the_way(self) -> tuple[tuple[str, bool], ...]:
        """The models in memory, and whether each is idle: while this stays as it is, no other way
        opens."""
        return tuple((name, _is_idle(resident)) for name, resident in self._loaded.items())

    def idle(self) -> tuple[str, ...]:
        """The models that answer nothing, the one that was not used for longest first."""
        resting = [(r.used_at, n) for n, r in self._loaded.items() if _is_idle(r)]
        return tuple(name for _, name in sorted(resting))

    def end(self, name: str, now: float, taken: Mapping[str, int] | None) -> None:
        """A load has ended: what the model takes on each node, or None if it failed."""
        self._loading = None
        if taken is not None:
            self._loaded[name] = Resident(taken, now)

    def hold(self, name: str, taken: Mapping[str, int]) -> None:
        """A model that is loaded takes other memory than it did."""
        if (resident := self._loaded.get(name)) is not None:
            resident.taken = taken

    # Using

    def use(self, name: str) -> bool:
        """Begin to answer a request; False if the model is not there to do it."""
        if self.state(name) is not ModelState.LOADED:
            return False
        self._loaded[name].num_uses += 1
        return True

    def end_use(self, name: str, now: float) -> None:
        """A request has ended."""
        resident = self._loaded.get(name)
        if resident is not None:  # it may have been unloaded by force meanwhile
            resident.num_uses = max(0, resident.num_uses - 1)
            resident.used_at = now

    def keep(self, name: str, keep_s: float) -> None:
        """Let a model stay so long after its last use, whatever the rules say."""
        if (resident := self._loaded.get(name)) is not None:
            resident.keep_s = keep_s

    def expires_at(self, name: str) -> float | None:
        """When an idle model has to go; None for never, and for one that is not loaded."""
        resident = self._loaded.get(name)
        if resident is None:
            return None
        keep_s = self.rules.idle_unload_s if resident.keep_s is None else resident.keep_s
        return None if keep_s is None or keep_s == inf else resident.used_at + keep_s

    def expired(self, now: float) -> list[str]:
        """The idle models whose time is up."""
        times = {name: self.expires_at(name) for name in self.idle()}
        return [name for name, time in times.items() if time is not None and time <= now]

    def next_expiry(self) -> float | None:
        """When the next of them will be; None for none."""
        times = [self.expires_at(name) for name in self.idle()]
        return min((time for time in times if time is not None), default=None)

    # Unloading

    def leave(self, name: str) -> bool:
        """Begin to unload: no request begins any more. False if it is not loaded."""
        if self.state(name) is not ModelState.LOADED:
            return False
        self._loaded[name].is_leaving = True
        return True

    def left(self, name: str) -> None:
        """Its memory is free."""
        self._loaded.pop(name, None)


def _is_idle(resident: Resident) -> bool:
    return resident.num_uses == 0 and not resident.is_leaving
