"""An embedding as it grows, chunk by chunk. Pure."""

import numpy as np
import numpy.typing as npt

from tbcluster.core import Pooling, TokenId
from tbcluster.errors import StageError


class PooledEmbedding:
    """Puts together what the last stage says about the chunks of one prompt."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling = pooling
        self._vector: npt.NDArray[np.float32] | None = None
        self._num_tokens = 0

    def pooling_of(self, start: int, size: int, tokens: list[TokenId]) -> Pooling | None:
        """What to ask of the chunk [start, start + size) of these tokens."""
        is_needed = self._pooling is Pooling.MEAN or start + size == len(tokens)
        return self._pooling if is_needed else None

    def add(self, vector: bytes, num_tokens: int) -> None:
        """A chunk's vector (see `wire.messages.Result`) has come; chunks come in order.

        Raises:
            StageError: It is not as wide as those before it.
        """
        part = np.frombuffer(vector, "<f4")
        if self._vector is not None and part.shape != self._vector.shape:
            raise StageError(f"a vector of {len(part)} numbers came after {len(self._vector)}")
        self._vector = part if self._vector is None else self._vector + part
        self._num_tokens += num_tokens

    def result(self) -> tuple[float, ...]:
        """The vector of the whole prompt.

        Raises:
            StageError: It holds something that is no number.
        """
        if self._vector is None or not self._vector.size:
            raise StageError("no vector came for any chunk of the prompt")
        whole = self._vector
        if self._pooling is Pooling.MEAN:
            whole = whole / np.float32(self._num_tokens)
        if not np.isfinite(whole).all():
            raise StageError(
                "the model's hidden states for this prompt are not numbers: its weights are "
                "damaged, or its type is too narrow for it"
            )
        return tuple(whole.tolist())

    def clear(self) -> None:
        """The prompt is computed again."""
        self._vector = None
        self._num_tokens = 0
