"""Where the joules went: per node, per model, per interval between two looks. Pure.

A node's joules of an interval count as serving in the share of it in which steps were on their way
there. Where several models computed on a node they share them by the time they computed. A
request pays by the time that stages computed for it (see docs/energy.md).
"""

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tbcluster.cluster.energy.node_count import Drawn, NodeCount, NodeEnergy
from tbcluster.cluster.energy.work import ModelWork, Work

# How long a request's whole time can be looked up, in intervals: seconds, as it is used.
NUM_INTERVALS = 900
# What was not metered fades from an account as requests pay: below this share it is not told.
NEGLIGIBLE = 0.01


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one model in one interval; `joules` is None where a node's are not known."""

    joules: float | None
    compute_s: float
    num_tokens: int
    is_estimate: bool


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules of a request, and whether a part of them was not metered."""

    joules: float
    is_estimate: bool

    @property
    def source(self) -> str:
        """In the words of the API."""
        return "estimate" if self.is_estimate else "meter"


@dataclass(frozen=True, slots=True)
class NodeTotals:
    """Of one node since it was first seen; `watts` is None while nobody knows them."""

    watts: float | None
    joules: float
    source: str


@dataclass(frozen=True, slots=True)
class _Interval:
    began_at: float
    ended_at: float
    models: Mapping[str, Spent]


@dataclass(slots=True)
class _Account:
    """What a model has spent that no request has paid for.

    Attributes:
        joules: Of the intervals in which they are known.
        known_s: That stages computed in those, of which `estimated_s` without a meter.
        unknown_s: That they computed in others: paid for at the price of the known ones.
    """

    joules: float = 0.0
    known_s: float = 0.0
    estimated_s: float = 0.0
    unknown_s: float = 0.0

    def add(self, spent: Spent) -> None:
        if spent.joules is None:
            self.unknown_s += spent.compute_s
            return
        self.joules += spent.joules
        self.known_s += spent.compute_s
        self.estimated_s += spent.compute_s if spent.is_estimate else 0.0

    def take(self, compute_s: float) -> Energy | None:
        """None where most of it is not known; it is taken all the same."""
        total_s = self.known_s + self.unknown_s
        if total_s <= 0:
            return None
        share = min(1.0, compute_s / total_s)
        taken = self._price(total_s * share) if self.known_s >= self.unknown_s else None
        self.joules -= self.joules * share
        self.known_s -= self.known_s * share
        self.estimated_s -= self.estimated_s * share
        self.unknown_s -= self.unknown_s * share
        return taken

    def _price(self, compute_s: float) -> Energy:
        unmetered = (self.estimated_s + self.unknown_s) / (self.known_s + self.unknown_s)
        return Energy(self.joules / self.known_s * compute_s, unmetered > NEGLIGIBLE)


@dataclass(slots=True)
class _Sum:
    joules: float = 0.0
    compute_s: float = 0.0
    num_tokens: int = 0
    is_known: bool = True
    is_estimate: bool = False
    num_intervals: int = 0

    def add(self, spent: Spent) -> None:
        self.joules += spent.joules or 0.0
        self.is_known &= spent.joules is not None
        self.is_estimate |= spent.is_estimate
        self.compute_s += spent.compute_s
        self.num_tokens += spent.num_tokens


class EnergyBook:
    """Is told once a second what nodes say and what models did. Thread-safe; times are seconds on
    one monotonic clock, that of requests' outputs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: float | None = None
        self._nodes: dict[str, NodeCount] = {}
        self._accounts: dict[str, _Account] = {}
        self._intervals: deque[_Interval] = deque(maxlen=NUM_INTERVALS)

    def add(
        self, now: float, nodes: Mapping[str, NodeEnergy], models: Mapping[str, ModelWork]
    ) -> None:
        """What nodes say now, those that can be heard, and what models did since the last time."""
        with self._lock:
            before, self._at = self._at, now
            seconds = 0.0 if before is None else now - before
            drawn = self._drawn(nodes, models, seconds)
            if before is None or seconds <= 0:
                return
            spent = {name: _spent(work, models, drawn) for name, work in models.items()}
            self._intervals.append(_Interval(before, now, spent))
            for name, one in spent.items():
                self._accounts.setdefault(name, _Account()).add(one)

    def nodes(self) -> dict[str, NodeTotals]:
        """Every node of which joules or watts are known."""
        with self._lock:
            return {
                name: NodeTotals(node.watts, node.joules, node.source)
                for name, node in self._nodes.items()
                if node.source
            }

    def joules_between(self, start: float, end: float) -> float | None:
        """What all serving took in the intervals that this time touches; None without any, or where
        a part is not known."""
        with self._lock:
            total = self._sum(start, end)
            return total.joules if total.num_intervals and total.is_known else None

    def joules_per_token(self, start: float, end: float) -> float | None:
        """The same for each generated token; None without any."""
        with self._lock:
            total = self._sum(start, end)
            is_told = total.num_tokens and total.is_known
            return total.joules / total.num_tokens if is_told else None

    def per_compute_s(self, model: str, start: float, end: float) -> Energy | None:
        """Joules for each second that a stage of this model computed, in the intervals that this
        time touches. Where none of them is over yet, in the newest in which it computed. None
        before there is any, or where a part is not known."""
        with self._lock:
            total = self._sum(start, end, model)
            if total.compute_s <= 0:
                total = _Sum()
                for spent in self._of_model(model):
                    if spent.compute_s > 0:
                        total.add(spent)
                        break
            if total.compute_s <= 0 or not total.is_known:
                return None
            return Energy(total.joules / total.compute_s, total.is_estimate)

    def charge(self, model: str, compute_s: float) -> Energy | None:
        """Let a request that has ended, and whose work the book has been told of, pay: its share of
        what no other has paid for yet. So all of them together pay what was spent."""
        with self._lock:
            account = self._accounts.get(model)
            return None if account is None else account.take(compute_s)

    def write_off(self, model: str) -> None:
        """The model has no requests: what is left was nobody's, such as comparing its output."""
        with self._lock:
            self._accounts.pop(model, None)

    def _drawn(
        self, nodes: Mapping[str, NodeEnergy], models: Mapping[str, ModelWork], seconds: float
    ) -> dict[str, Drawn]:
        drawn: dict[str, Drawn] = {}
        for name in self._nodes.keys() - nodes.keys():
            self._nodes[name].miss()
        for name, said in nodes.items():
            node = self._nodes.setdefault(name, NodeCount())
            if seconds <= 0:
                node.begin(said)
                continue
            one = node.add(said, seconds, _active_s(list(_on(name, models)), seconds))
            if one is not None:
                drawn[name] = one
        return drawn

    def _sum(self, start: float, end: float, model: str | None = None) -> _Sum:
        total = _Sum()
        for interval in reversed(self._intervals):
            if interval.ended_at <= start:
                break
            if interval.began_at >= end:
                continue
            total.num_intervals += 1
            for name, spent in interval.models.items():
                if model in (None, name):
                    total.add(spent)
        return total

    def _of_model(self, model: str) -> Iterator[Spent]:
        """Newest first."""
        for interval in reversed(self._intervals):
            if (spent := interval.models.get(model)) is not None:
                yield spent


def _on(node: str, models: Mapping[str, ModelWork]) -> Iterator[Work]:
    return (model.nodes[node] for model in models.values() if node in model.nodes)


def _spent(own: ModelWork, models: Mapping[str, ModelWork], drawn: Mapping[str, Drawn]) -> Spent:
    """Its share of what the nodes drew that it computed on."""
    joules: float | None = 0.0
    is_estimate = False
    for name, work in own.nodes.items():
        if work.active_s <= 0:
            continue
        node = drawn.get(name)
        if node is None or joules is None:
            joules = None
            continue
        joules += node.serving * _share(work, list(_on(name, models)))
        is_estimate |= node.is_estimate
    compute_s = sum(work.compute_s for work in own.nodes.values())
    return Spent(joules, compute_s, own.num_tokens, is_estimate)


def _active_s(everyone: list[Work], seconds: float) -> float:
    """In which steps of any model were on their way: of several, at most one after the other."""
    each = [work.active_s for work in everyone]
    return max(min(sum(each), seconds), max(each, default=0.0))


def _share(own: Work, everyone: list[Work]) -> float:
    computed_s = sum(work.compute_s for work in everyone)
    if computed_s > 0:
        return own.compute_s / computed_s
    return own.active_s / sum(work.active_s for work in everyone)
