"""What depends on what in a lazily built MLX graph.

MLX has no interface for this but `export_to_dot`, so the graph is written as text and read back.
Nothing is evaluated.
"""

import io
from collections.abc import Iterable, Mapping

import mlx.core as mx

# export_to_dot silently mixes up names past this many arrays.
MAX_NAMES = 1024


class DependencyGraph:
    """Parents of every node; arrays are known by the names they were given."""

    def __init__(self, named: Mapping[str, mx.array]) -> None:
        if len(named) > MAX_NAMES:
            raise ValueError(f"{len(named)} named arrays, MLX exports at most {MAX_NAMES}")
        self._parents: dict[str, list[str]] = {}
        text = io.StringIO()
        mx.export_to_dot(text, **named)
        text.seek(0)
        self._read(text)

    def sources(self, outputs: Iterable[str], cut_at: Iterable[str] = ()) -> set[str]:
        """Names of all arrays that `outputs` depend on, the outputs included; the search goes no
        further back than the arrays in `cut_at`."""
        barrier = {_quote(name) for name in cut_at}
        waiting = [_quote(name) for name in outputs]
        seen: set[str] = set()
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            if node not in barrier:
                waiting.extend(self._parents.get(node, ()))
        return {node[1:-1] for node in seen if node.startswith('"')}

    def _read(self, lines: Iterable[str]) -> None:
        # A node's id in the text is the address of its primitive, which calls of a compiled
        # function share. The text is written one operation after another, so their count is
        # a name that is theirs alone.
        operation = 0
        for line in lines:
            if "[label" in line:
                operation += 1
            elif " -> " in line:
                source, target = (
                    node if node.startswith('"') else f"#{operation}"
                    for node in line.strip().split(" -> ")
                )
                self._parents.setdefault(target, []).append(source)


def _quote(name: str) -> str:
    return f'"{name}"'
