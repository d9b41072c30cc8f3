"""Links of nodes that share a network, beside cables between some of them. Pure.

Of a thousand nodes a mapping of all pairs would hold a million entries; this one holds the cables.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

from tbcluster.planner.nodes import PlanLink

Pair = tuple[str, str]
NO_CABLES: Mapping[Pair, PlanLink] = {}


class NetworkLinks(Mapping[Pair, PlanLink]):
    """The cable between two nodes, else the network.

    Args:
        cables: By (source, target), in both directions.
    """

    def __init__(
        self, names: Sequence[str], network: PlanLink, cables: Mapping[Pair, PlanLink] = NO_CABLES
    ) -> None:
        self.network = network
        self.cables = cables
        self._names = dict.fromkeys(names)

    def __getitem__(self, pair: Pair) -> PlanLink:
        cable = self.cables.get(pair)
        if cable is not None:
            return cable
        source, target = pair
        if source == target or source not in self._names or target not in self._names:
            raise KeyError(pair)
        return self.network

    def __iter__(self) -> Iterator[Pair]:
        return permutations(self._names, 2)

    def __len__(self) -> int:
        return len(self._names) * (len(self._names) - 1)

    def among(self, names: Sequence[str]) -> "NetworkLinks":
        """Of these nodes only."""
        kept = set(names)
        cables = {
            pair: cable
            for pair, cable in self.cables.items()
            if pair[0] in kept and pair[1] in kept
        }
        return NetworkLinks(names, self.network, cables)
