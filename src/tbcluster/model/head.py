"""What a model's head is given: the hidden states that embeddings are made of.

mlx-lm's models hand their last hidden states, after the final norm, to a linear layer or to the
token embedding, and may scale, cap or cut the logits after it. While the model is traced, the calls
of all modules outside its layers are watched, and the graph says which of them all layers go
through.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from tbcluster.errors import StageError
from tbcluster.model.graph import DependencyGraph
from tbcluster.model.hooks import CALL, call_layer, hooked
from tbcluster.model.trace import TRACED_LENGTHS, HeadInput

AS_LINEAR = "as_linear"
# By name, for a model that cannot be traced.
USUAL_HEAD = "lm_head"


class BeforeHead:
    """A model that is run up to its head."""

    def __init__(self, model: nn.Module, head: HeadInput) -> None:
        self._model = model
        self._head = head
        self._module = dict(model.named_modules())[head.path]

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        """The hidden states (num_sequences, num_tokens, width) of these token ids (num_sequences,
        num_tokens), in the type the model computes in."""
        with hooked([self._module], self, self._head.method):
            try:
                self._model(tokens, cache=cache)
            except _HeadReached as reached:
                return reached.hidden
        raise StageError(f"the model did not call {self._head.path}, as it did when traced")

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call that the hidden states are taken from (see `hooks.LayerObserver`)."""
        if self._head.is_argument:
            raise _HeadReached(args[0])
        raise _HeadReached(call_layer(layer, args, kwargs, self._head.method))


class _HeadReached(Exception):  # noqa: N818 - control flow, not an error
    def __init__(self, hidden: mx.array) -> None:
        super().__init__()
        self.hidden = hidden


@dataclass(frozen=True, slots=True)
class _Candidate:
    where: HeadInput
    run: int
    hidden: mx.array


class HeadSearch:
    """Watches a model while it is traced, and says then where its head's input is."""

    def __init__(self, model: nn.Module) -> None:
        inside = {id(module) for layer in model.layers for module in layer.modules()}
        outside = {
            path: module
            for path, module in model.named_modules()
            if module is not model and id(module) not in inside
        }
        self._paths = {id(module): path for path, module in outside.items()}
        self._embeddings = [m for m in outside.values() if hasattr(m, AS_LINEAR)]
        self._others = [m for m in outside.values() if not hasattr(m, AS_LINEAR)]
        self._run = -1
        self._candidates: list[_Candidate] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the model for the length of a block."""
        with ExitStack() as stack:
            stack.enter_context(hooked(self._embeddings, self, AS_LINEAR))
            stack.enter_context(hooked(self._others, self))
            yield

    def begin_run(self) -> None:
        """The next forward pass begins."""
        self._run += 1

    def on_call(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        path = self._paths[id(layer)]
        method = AS_LINEAR if hasattr(layer, AS_LINEAR) else CALL
        if args and self._may_be(args[0]):
            # stop_gradient makes it a node of its own in the graph.
            args = mx.stop_gradient(args[0]), *args[1:]
            self._candidates.append(_Candidate(HeadInput(path, method, True), self._run, args[0]))
        output = call_layer(layer, args, kwargs, method)
        if self._may_be(output):
            output = mx.stop_gradient(output)
            self._candidates.append(_Candidate(HeadInput(path, method, False), self._run, output))
        return output

    def _may_be(self, value: Any) -> bool:
        return (
            isinstance(value, mx.array)
            and value.shape[:-1] == (1, TRACED_LENGTHS[self._run])
            and mx.issubdtype(value.dtype, mx.floating)
        )

    def named(self) -> dict[str, mx.array]:
        """The arrays that `find` asks the graph about, by the names it uses."""
        return {_name(i): candidate.hidden for i, candidate in enumerate(self._candidates)}

    def find(self, graph: DependencyGraph, vocab_size: int) -> HeadInput | None:
        """The latest value that all layers go through on their way to the logits, and that is no
        logits itself."""
        calls = Counter(candidate.where for candidate in self._candidates)
        for where in reversed(calls):
            found = [i for i, c in enumerate(self._candidates) if c.where == where]
            runs = [self._candidates[i].run for i in found]
            widths = {self._candidates[i].hidden.shape[-1] for i in found}
            if runs == list(range(len(TRACED_LENGTHS))) and vocab_size not in widths:
                outputs = [f"output {run}" for run in runs]
                behind = graph.sources(outputs, [_name(i) for i in found])
                if not any(name.startswith(("layer ", "value ")) for name in behind):
                    return where
        return None


def usual_head(model: nn.Module) -> HeadInput | None:
    """Where the head's input is in a model that cannot be traced."""
    is_there = isinstance(model.get(USUAL_HEAD), nn.Module)
    return HeadInput(USUAL_HEAD, CALL, is_argument=True) if is_there else None


def _name(index: int) -> str:
    return f"hidden {index}"
