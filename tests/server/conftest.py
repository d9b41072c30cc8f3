"""Servers that the tests of this folder share. Each test process has its own; what a test changes
there (stored responses, known prefixes) must not matter to the others."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.doubles.server import ServeProcess
from tests.doubles.tokenizers import write_tool_model


@pytest.fixture(scope="session")
def server() -> Iterator[ServeProcess]:
    """The bundled model through two stages."""
    with ServeProcess("--stages", "2") as running:
        yield running


@pytest.fixture(scope="session")
def http(server: ServeProcess) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def client(server: ServeProcess) -> openai.OpenAI:
    """OpenAI's own client of it."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="session")
def tool_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model whose chat template knows tools and reasoning."""
    return write_tool_model(tmp_path_factory.mktemp("models") / "tool-model")


@pytest.fixture(scope="session")
def tool_server(tool_model: Path) -> Iterator[ServeProcess]:
    """That model through two stages."""
    with ServeProcess("--stages", "2", str(tool_model)) as running:
        yield running
