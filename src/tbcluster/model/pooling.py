"""From the hidden states of a prompt's chunk to its part of an embedding, on the last stage."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from tbcluster.core import Pooling


@dataclass(frozen=True, slots=True)
class PendingVector:
    """A vector (width,) in float32 that is being computed."""

    vector: mx.array

    def result(self) -> bytes:
        """As little-endian float32; waits for it."""
        return np.array(self.vector).astype("<f4").tobytes()


def pool(hidden: mx.array, pooling: Pooling) -> mx.array:
    """The graph of one vector (width,) in float32: the last token's, or the sum of all tokens'
    (the coordinator adds up the chunks of a prompt, so that no stage keeps anything between them).

    Args:
        hidden: (1, num_tokens, width).
    """
    if pooling is Pooling.LAST:
        return hidden[0, -1].astype(mx.float32)
    return hidden[0].astype(mx.float32).sum(axis=0)
