"""Nobody on the cable reads what crosses it."""

from pathlib import Path

import pytest

from benchmarks.linked_pipeline import FAR, NEAR, linked_pipeline
from tests.doubles.capture import Capture
from tests.doubles.checkpoints import LlamaSizes, write_llama
from tests.doubles.namespaces import Network, needs_namespaces

NUM_TOKENS = 4
# Words of every step and every result.
WORDS = (b"step", b"result", b"float32")


@needs_namespaces
@pytest.mark.parametrize("is_sealed", [False, True])
def test_the_data_plane_shows_its_words_only_in_the_clear(tmp_path: Path, is_sealed: bool) -> None:
    model = write_llama(tmp_path, LlamaSizes(num_hidden_layers=2))
    with Network() as network:
        network.add(NEAR, FAR)
        ends = network.cable(NEAR, FAR)
        with (
            linked_pipeline(network, ends, model) as pipeline,
            Capture(network, NEAR, ends[0].interface) as capture,
        ):
            pipeline.ms_per_token(NUM_TOKENS, is_sealed=is_sealed)
    assert capture.num_bytes > NUM_TOKENS * 64
    for word in WORDS:
        assert capture.contains(word) is not is_sealed, word
