"""Racks that the tests of this folder share. Each test process has its own, and whatever a test
does to one, it has to serve afterwards."""

from collections.abc import Iterator

import mlx_lm
import pytest

from tbcluster.demo import MODEL_PATH
from tests.doubles.namespaces import Network
from tests.rack.racks import NUM_TOKENS, QUESTIONS, FoundRack, ListedRack


@pytest.fixture(scope="session")
def rack() -> Iterator[FoundRack]:
    """Three nodes that joined by token and find each other by multicast DNS."""
    with Network() as network, FoundRack(network) as made:
        made.serve()
        yield made


@pytest.fixture(scope="session")
def listed_rack() -> Iterator[ListedRack]:
    """Three nodes that know each other's addresses from a file, with two ways between them."""
    with Network() as network, ListedRack(network) as made:
        made.serve()
        yield made


@pytest.fixture(scope="session")
def answers() -> dict[tuple[int, ...], str]:
    """What mlx-lm says to the questions, by the tokens of their prompts."""
    model, tokenizer = mlx_lm.load(str(MODEL_PATH))
    prompts = [
        tuple(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True
            )
        )
        for question in QUESTIONS
    ]
    return {
        prompt: mlx_lm.generate(model, tokenizer, list(prompt), max_tokens=NUM_TOKENS)
        for prompt in prompts
    }
