"""Which token prefixes the stages hold KV caches for. Pure: no clock, no socket, no thread of its
own; other threads may ask `would_cover`.

The entries are the ends of paths in a radix tree: a node's label is the run of tokens between its
parent and itself, and no two children of a node begin with the same token. A look-up compares each
token of the prompt a few times at most, however many entries there are; it compares the tokens
themselves, so no collision of hashes can mistake one prefix for another.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from threading import RLock

from tbcluster.core import TokenId

# A shorter covered prefix is computed again sooner than a cache is copied.
MIN_MATCH = 16
# Tokens compared at once, as slices, before the first difference is looked for one by one.
_BLOCK = 256


@dataclass(eq=False, slots=True)
class PrefixEntry:
    """A prefix the stages hold; its identity is the object's own.

    Attributes:
        tokens: Exactly the tokens whose KV the cache holds; they never change.
        cache_id: Its cache on the stages; None if it is on disk only.
        saved_as: Its name on the stages' disks; None if it is in memory only.
        is_savable: False once writing it to disk has failed.
        is_proven: False from when it is loaded from disk until a step that used it has succeeded.
    """

    tokens: tuple[TokenId, ...]
    cache_id: int | None
    saved_as: str | None = None
    is_savable: bool = True
    is_proven: bool = True


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """An entry to start from; `num_tokens` of the prompt's first tokens are covered by it."""

    entry: PrefixEntry
    num_tokens: int


@dataclass(eq=False, slots=True)
class _Node:
    """`depth` counts the tokens from the root to its end, `num_trimmable` the trimmable entries at
    and below it."""

    depth: int
    label: tuple[TokenId, ...] = ()
    parent: "_Node | None" = None
    children: "dict[TokenId, _Node]" = field(default_factory=dict)
    entry: PrefixEntry | None = None
    num_trimmable: int = 0


def common_length(left: Sequence[TokenId], right: Sequence[TokenId]) -> int:
    """How many tokens two runs have in common from their start."""
    length = min(len(left), len(right))
    for start in range(0, length, _BLOCK):
        stop = min(start + _BLOCK, length)
        # As tuples, because a list never equals a tuple.
        if tuple(left[start:stop]) != tuple(right[start:stop]):
            return next(i for i in range(start, stop) if left[i] != right[i])
    return length


class PrefixIndex:
    """Finds the entry that saves most of a prompt, and keeps the entries in order of last use.

    Args:
        max_trimmable_tokens: Entries of fewer tokens than this serve any prefix of their tokens,
            others only prompts that begin with all of them. None: every entry can be trimmed.
    """

    def __init__(self, max_trimmable_tokens: int | None) -> None:
        self._max_trimmable_tokens = max_trimmable_tokens
        self._root = _Node(depth=0)
        # Oldest use first. An OrderedDict finds its first key at once, even after many removals.
        self._nodes: OrderedDict[PrefixEntry, _Node] = OrderedDict()
        # Held while the tree is changed, and while another thread may be the one that reads it.
        self._tree_lock = RLock()

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, entry: PrefixEntry) -> bool:
        return entry in self._nodes

    def __iter__(self) -> Iterator[PrefixEntry]:
        """The entries, the one used longest ago first; they may be removed meanwhile."""
        return iter(tuple(self._nodes))

    def oldest(self, predicate: Callable[[PrefixEntry], bool] | None = None) -> PrefixEntry | None:
        """The entry used longest ago, of those that `predicate` is true for."""
        return next((entry for entry in self._nodes if not predicate or predicate(entry)), None)

    def find(self, tokens: Sequence[TokenId]) -> PrefixMatch | None:
        """The entry that covers most of a prompt, from now on the last used one.

        The prompt's last token is never covered: computing it gives the first new one. Of entries
        that cover equally much, one in memory comes first, then the shortest.
        """
        place = self._best_place(tuple(tokens))
        if place is None:
            return None
        match = PrefixMatch(self._preferred(*place), place[1])
        self._nodes.move_to_end(match.entry)
        return match

    def would_cover(self, tokens: Sequence[TokenId]) -> int:
        """How many of a prompt's tokens `find` would cover; nothing counts as used. Thread-safe."""
        with self._tree_lock:
            place = self._best_place(tuple(tokens))
        return place[1] if place else 0

    def shared_with_any(self, tokens: Sequence[TokenId]) -> int:
        """How many of a prompt's tokens, its last one apart, some entry begins with, whether or not
        that entry could serve it."""
        _, covered = self._descend(tuple(tokens), len(tokens) - 1)[-1]
        return covered

    def add(self, entry: PrefixEntry) -> list[PrefixEntry]:
        """Take in an entry as the last used one.

        Returns:
            The entries that it made superfluous, which are no longer here: of equal tokens, or,
            if the new one can be trimmed, of the first of its tokens.
        """
        if entry in self._nodes:
            self._nodes.move_to_end(entry)
            return []
        with self._tree_lock:
            superfluous = self._superfluous_beside(entry)
            for known in superfluous:
                self.remove(known)
            node = self._make_node(entry.tokens)
            node.entry = entry
            self._nodes[entry] = node
            self._count_trimmable(node, 1)
        return superfluous

    def can_trim_length(self, num_tokens: int) -> bool:
        """Whether a cache of so many tokens can give up its newest ones exactly, and so serve any
        prefix of its tokens."""
        return self._max_trimmable_tokens is None or num_tokens < self._max_trimmable_tokens

    def remove(self, entry: PrefixEntry) -> None:
        """Take out an entry.

        Raises:
            KeyError: It is not here.
        """
        node = self._nodes.pop(entry)
        with self._tree_lock:
            self._count_trimmable(node, -1)
            node.entry = None
            if node.parent and not node.children:
                del node.parent.children[node.label[0]]
                node = node.parent
            _merge_with_only_child(node)

    def _count_trimmable(self, node: _Node, change: int) -> None:
        if self.can_trim_length(node.depth):
            while True:
                node.num_trimmable += change
                if node.parent is None:
                    return
                node = node.parent

    def _descend(self, tokens: tuple[TokenId, ...], limit: int) -> list[tuple[_Node, int]]:
        """The nodes along the first `limit` tokens, each with how many tokens it is reached by:
        its depth, or fewer for the last node, within whose label the tokens end or differ."""
        node, covered = self._root, 0
        path = [(node, covered)]
        while covered == node.depth and covered < limit and tokens[covered] in node.children:
            node = node.children[tokens[covered]]
            covered += common_length(node.label, tokens[covered : min(limit, node.depth)])
            path.append((node, covered))
        return path

    def _best_place(self, tokens: tuple[TokenId, ...]) -> tuple[_Node, int] | None:
        """The deepest node with a usable entry at or below it, and how much that covers."""
        for node, covered in reversed(self._descend(tokens, len(tokens) - 1)):
            if covered < MIN_MATCH:
                break
            if node.num_trimmable or (node.entry and covered == node.depth):
                return node, covered
        return None

    def _preferred(self, node: _Node, covered: int) -> PrefixEntry:
        first = None
        for entry in self._usable(node, covered):
            if entry.cache_id is not None:
                return entry
            first = first or entry
        assert first is not None, "_best_place found a usable entry here"  # noqa: S101
        return first

    def _usable(self, node: _Node, covered: int) -> Iterator[PrefixEntry]:
        """The entries at and below a node that can serve the `covered` tokens, shortest first."""
        order = count()
        queue = [(node.depth, next(order), node)]
        while queue:
            depth, _, node = heappop(queue)
            if node.entry and (depth == covered or self.can_trim_length(depth)):
                yield node.entry
            for child in node.children.values():
                if child.num_trimmable:
                    heappush(queue, (child.depth, next(order), child))

    def _superfluous_beside(self, new: PrefixEntry) -> list[PrefixEntry]:
        num_tokens = len(new.tokens)
        serves_shorter = self.can_trim_length(num_tokens)
        return [
            node.entry
            for node, covered in self._descend(new.tokens, num_tokens)
            if node.entry and covered == node.depth and (serves_shorter or covered == num_tokens)
        ]

    def _make_node(self, tokens: tuple[TokenId, ...]) -> _Node:
        """The node at the end of these tokens, made if need be."""
        node, covered = self._descend(tokens, len(tokens))[-1]
        if covered < node.depth:
            node = _split(node, covered)
        if covered < len(tokens):
            leaf = _Node(len(tokens), tokens[covered:], parent=node)
            node.children[tokens[covered]] = leaf
            node = leaf
        return node


def _split(node: _Node, depth: int) -> _Node:
    """A new node at `depth`, within the label of `node`, which becomes its only child."""
    assert node.parent is not None, "the root has no label to split"  # noqa: S101
    size = depth - node.parent.depth
    upper = _Node(depth, node.label[:size], node.parent, num_trimmable=node.num_trimmable)
    node.parent.children[node.label[0]] = upper
    node.label, node.parent = node.label[size:], upper
    upper.children[node.label[0]] = node
    return upper


def _merge_with_only_child(node: _Node) -> None:
    """Take a node out of the tree that neither ends an entry nor forks."""
    if node.parent is None or node.entry or len(node.children) != 1:
        return
    (child,) = node.children.values()
    child.label = node.label + child.label
    child.parent = node.parent
    node.parent.children[child.label[0]] = child
