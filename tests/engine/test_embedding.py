"""A prompt's embedding, put together from what comes about its chunks."""

import struct

import pytest

from tbcluster.core import Pooling
from tbcluster.engine.embedding import PooledEmbedding
from tbcluster.errors import StageError


def floats(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def test_every_chunk_of_a_mean_is_asked_for_and_only_the_last_of_the_other() -> None:
    tokens = [1, 2, 3, 4, 5]
    mean, last = PooledEmbedding(Pooling.MEAN), PooledEmbedding(Pooling.LAST)
    assert [mean.pooling_of(0, 2, tokens), mean.pooling_of(2, 3, tokens)] == [Pooling.MEAN] * 2
    assert [last.pooling_of(0, 2, tokens), last.pooling_of(2, 3, tokens)] == [None, Pooling.LAST]


def test_a_mean_weighs_every_token_alike() -> None:
    embedding = PooledEmbedding(Pooling.MEAN)
    embedding.add(floats(3.0, -6.0), 3)
    embedding.add(floats(1.0, 2.0), 1)
    assert embedding.result() == (1.0, -1.0)


def test_a_prompt_that_is_computed_again_begins_from_nothing() -> None:
    embedding = PooledEmbedding(Pooling.MEAN)
    embedding.add(floats(100.0), 7)
    embedding.clear()
    with pytest.raises(StageError, match="no vector"):
        embedding.result()
    embedding.add(floats(4.0), 2)
    assert embedding.result() == (2.0,)


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_no_embedding(pooling: Pooling, number: float) -> None:
    embedding = PooledEmbedding(pooling)
    embedding.add(floats(1.0, number), 1)
    with pytest.raises(StageError, match="not numbers"):
        embedding.result()


def test_chunks_of_different_widths_are_refused() -> None:
    embedding = PooledEmbedding(Pooling.MEAN)
    embedding.add(floats(1.0, 2.0), 1)
    with pytest.raises(StageError, match="1 numbers came after 2"):
        embedding.add(floats(1.0), 1)
