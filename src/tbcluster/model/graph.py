"""What depends on what in a lazily built MLX graph.

MLX has no interface for this but `export_to_dot`, so the graph is written as text and read back.
Nothing is evaluated.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import mlx.core as mx

# export_to_dot takes no more named arrays than this.
MAX_NAMES = 1024


class DependencyGraph:
    """What named arrays depend on; a search goes from one named array to the next, so that it costs
    the same whatever is computed in between."""

    def __init__(self, named: Mapping[str, mx.array]) -> None:
        if len(named) > MAX_NAMES:
            raise ValueError(f"{len(named)} named arrays, MLX exports at most {MAX_NAMES}")
        parents = _parents(_exported((), named).splitlines())
        self._nearest = _nearest(parents, frozenset(named))

    def sources(self, outputs: Iterable[str], cut_at: Iterable[str] = ()) -> set[str]:
        """Names of all named arrays that `outputs` depend on, the outputs included; the search goes
        no further back than the arrays in `cut_at`."""
        barrier = set(cut_at)
        waiting = list(outputs)
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            if name not in barrier:
                waiting.extend(self._nearest.get(name, ()))
        return seen


class OriginGraph:
    """Which of many arrays, whose number is not bounded, some others are made of.

    Args:
        origins: As they came from a file; they depend on nothing.
        derived: Any arrays.

    Attributes:
        computed: Origins whose values something has asked for: what was made of those values is not
            in the graph.
    """

    def __init__(self, origins: Sequence[mx.array], derived: Sequence[mx.array]) -> None:
        if sum(1 for _ in _declared(_exported(origins, {}).splitlines())) != len(origins):
            raise ValueError("an origin is given twice, or depends on another array")
        # As nodes of their own that nothing else reads.
        ends = [mx.stop_gradient(array) for array in derived]
        lines = _exported((*origins, *ends), {}).splitlines()
        # Operations are written in the order of the arguments, each after what it reads.
        names = list(islice(_declared(lines), len(origins)))
        self._index = {name: i for i, name in enumerate(names)}
        self._ends = list(_unread_ends(lines))
        self._parents = _parents(lines)
        self.computed = frozenset(i for i, name in enumerate(names) if name not in self._parents)

    def origins(self, derived: int) -> set[int]:
        """Indices of all origins that the array of this index depends on."""
        seen: set[str] = set()
        waiting = [self._ends[derived]]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(self._parents.get(name, ()))
        return {self._index[name] for name in seen if name in self._index}


def _exported(arrays: Sequence[mx.array], named: Mapping[str, mx.array]) -> str:
    text = io.StringIO()
    mx.export_to_dot(text, *arrays, **named)
    return text.getvalue()


def _declared(lines: Iterable[str]) -> Iterator[str]:
    """All arrays, each where it is first written."""
    for line in lines:
        if line.startswith("{") and line.endswith('"; }'):
            yield line.split('"')[1]


def _unread_ends(lines: Iterable[str]) -> Iterator[str]:
    """What stop_gradient made and nothing reads."""
    is_end = False
    for line in lines:
        if "[label" in line:
            is_end = '"StopGradient"' in line
        elif is_end and line.startswith("{ rank=sink"):
            yield line.split('"')[1]


def _parents(lines: Iterable[str]) -> dict[str, list[str]]:
    """Array -> the arrays that the operation behind it reads.

    The id of an operation in the text is the address of its primitive, which calls of a compiled
    function share: only the order of the lines tells operations apart.
    """
    parents: dict[str, list[str]] = {}
    inputs: list[str] = []
    for line in lines:
        if line.startswith('"'):  # "array" -> operation
            inputs.append(line[1 : line.index('"', 1)])
        elif line.endswith('"'):  # operation -> "array"
            parents[line[line.index('"') + 1 : -1]] = inputs
        elif "[label" in line:
            inputs = []
    return parents


def _nearest(parents: Mapping[str, list[str]], names: frozenset[str]) -> dict[str, list[str]]:
    """For each name the names that it depends on without another one in between."""
    nearest: dict[str, list[str]] = {}
    for name in names:
        found: list[str] = []
        seen: set[str] = set()
        waiting = list(parents.get(name, ()))
        while waiting:
            array = waiting.pop()
            if array in seen:
                continue
            seen.add(array)
            if array in names:
                found.append(array)
            else:
                waiting.extend(parents.get(array, ()))
        nearest[name] = found
    return nearest
