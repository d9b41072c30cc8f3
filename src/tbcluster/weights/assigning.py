"""Who fetches what from where. Pure.

Whatever nodes need and none holds leaves the hub once, shared evenly among those that need it; the
others copy it from whoever fetched it. For nodes that do not reach the hub another one fetches it.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from tbcluster.checkpoint import Span, merged, num_bytes
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
    needs: Mapping[str, Sequence[Span]],
    held: Mapping[str, Sequence[Span]],
    reaching: Collection[str] = (),
) -> dict[str, tuple[FetchPart, ...]]:
    """What each node fetches, and from where.

    Args:
        needs: By node, in pieces (`headers.Pieces.touching`): two of them are equal or disjoint.
        held: By node that can be copied from, in spans of any kind; also nodes that need nothing.
        reaching: Nodes that get the model from the hub; none where that is not known.

    Returns:
        For each node that needs anything, all of it, each piece once: what it holds itself has the
        node's own id as its source. Besides what nodes fetch for others that do not reach the hub.
    """
    holdings = {node: Coverage(spans) for node, spans in sorted(held.items())}
    askers: defaultdict[Span, list[str]] = defaultdict(list)
    for node in sorted(needs):
        for piece in dict.fromkeys(needs[node]):
            askers[piece].append(node)
    holders = {
        piece: [node for node, holding in holdings.items() if holding.covers(piece)]
        for piece in sorted(askers)
    }
    fetchers = _spread(
        {
            piece: _fetchers(askers[piece], reaching)
            for piece, having in holders.items()
            if not having
        },
        Counter(),
    )
    chosen: dict[str, defaultdict[str, list[Span]]] = {node: defaultdict(list) for node in needs}
    for piece, node in fetchers.items():
        chosen.setdefault(node, defaultdict(list))[HUB].append(piece)
    load: Counter[str] = Counter()
    for node in sorted(needs):
        own = sorted(set(needs[node]))
        chosen[node][node] = [piece for piece in own if node in holders[piece]]
        copied = {
            piece: holders[piece] or [fetchers[piece]]
            for piece in own
            if node not in holders[piece] and fetchers.get(piece) != node
        }
        for piece, source in _spread(copied, load).items():
            chosen[node][source].append(piece)
    return {
        node: tuple(
            FetchPart(merged(spans), source) for source, spans in sorted(parts.items()) if spans
        )
        for node, parts in chosen.items()
    }


def _fetchers(askers: Sequence[str], reaching: Collection[str]) -> Sequence[str]:
    """Who may fetch from the hub what these nodes need: one of them if it can be."""
    return [node for node in askers if node in reaching] or sorted(reaching) or askers


def _spread(candidates: Mapping[Span, Sequence[str]], load: Counter[str]) -> dict[Span, str]:
    """One of the candidates for each piece; all get about as much, in runs of adjacent pieces that
    one request can ask for.

    Args:
        candidates: By piece, ascending.
        load: Bytes that each node has been chosen for; they are added to.
    """
    free = {piece: nodes for piece, nodes in candidates.items() if len(nodes) > 1}
    # Short enough that all nodes get several.
    most = max(map(len, free.values()), default=1)
    run_bytes = min(MAX_RUN_BYTES, num_bytes(free) // (RUNS_EACH * most))
    chosen: dict[Span, str] = {}
    node, end, left = "", ("", 0), 0
    for piece, nodes in candidates.items():
        goes_on = (piece.file, piece.offset) == end and left >= piece.length
        if not goes_on or node not in nodes:
            node = min(nodes, key=lambda name: (load[name], name))
            left = run_bytes
        left -= piece.length
        end = (piece.file, piece.end)
        load[node] += piece.length
        chosen[piece] = node
    return chosen
