"""Who fetches what from where. Pure.

Whatever several nodes need and none holds leaves the hub once, shared evenly among those that need
it; the others copy it from whoever fetched it.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tbcluster.checkpoint import Span, merged
from tbcluster.wire.errands import FetchPart

HUB = ""
# Adjacent pieces go to one node, up to so much: as much as one request asks for.
MAX_RUN_BYTES = 64 * 1024**2
RUNS_EACH = 4


class Coverage:
    """Answers whether bytes are among these spans."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans: defaultdict[str, list[Span]] = defaultdict(list)
        for span in merged(spans):
            self._spans[span.file].append(span)

    def covers(self, span: Span) -> bool:
        """Whether all of it is."""
        spans = self._spans.get(span.file, [])
        after = bisect_right(spans, span.offset, key=lambda held: held.offset)
        return after > 0 and span.end <= spans[after - 1].end


def assign(
    needs: Mapping[str, Sequence[Span]], held: Mapping[str, Sequence[Span]]
) -> dict[str, tuple[FetchPart, ...]]:
    """What each node fetches, and from where.

    Args:
        needs: By node, in pieces (`headers.Pieces.touching`): two of them are equal or disjoint.
        held: By node that can be copied from, in spans of any kind; also nodes that need nothing.

    Returns:
        For each node that needs anything, all of it, each piece once: what it holds itself has the
        node's own id as its source.
    """
    holdings = {node: Coverage(spans) for node, spans in sorted(held.items())}
    askers: defaultdict[Span, list[str]] = defaultdict(list)
    for node in sorted(needs):
        for piece in dict.fromkeys(needs[node]):
            askers[piece].append(node)
    hub = _HubShares(_run_bytes(askers))
    load: Counter[str] = Counter()
    chosen: dict[str, defaultdict[str, list[Span]]] = {node: defaultdict(list) for node in needs}
    for piece, nodes in sorted(askers.items()):
        holders = [node for node, holding in holdings.items() if holding.covers(piece)]
        missing = [node for node in nodes if node not in holders]
        for node in nodes:
            if node in holders:
                chosen[node][node].append(piece)
        if missing and not holders:
            first = hub.choose(piece, missing)
            chosen[first][HUB].append(piece)
            missing.remove(first)
            holders = [first]
        for node in missing:
            source = min(holders, key=lambda holder: (load[holder], holder))
            load[source] += piece.length
            chosen[node][source].append(piece)
    return {
        node: tuple(FetchPart(merged(spans), source) for source, spans in sorted(parts.items()))
        for node, parts in chosen.items()
    }


class _HubShares:
    """Spreads what comes from the hub, in runs that one request can ask for."""

    def __init__(self, run_bytes: int) -> None:
        self._run_bytes = run_bytes
        self._load: Counter[str] = Counter()
        self._node = ""
        self._end: tuple[str, int] = ("", 0)
        self._left = 0

    def choose(self, piece: Span, nodes: Sequence[str]) -> str:
        """Which of these nodes fetches it; pieces come in ascending order."""
        goes_on = (piece.file, piece.offset) == self._end and self._left >= piece.length
        if not goes_on or self._node not in nodes:
            self._node = min(nodes, key=lambda node: (self._load[node], node))
            self._left = self._run_bytes
        self._left -= piece.length
        self._end = (piece.file, piece.end)
        self._load[self._node] += piece.length
        return self._node


def _run_bytes(askers: Mapping[Span, Sequence[str]]) -> int:
    """Short enough that all nodes get several."""
    num_nodes = max((len(nodes) for nodes in askers.values()), default=1)
    shared = sum(piece.length for piece, nodes in askers.items() if len(nodes) > 1)
    return min(MAX_RUN_BYTES, shared // (RUNS_EACH * num_nodes))
