"""The arrows between packages run one way, and each third-party package has its owners."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "tbcluster"

# Package -> packages of ours that it may import, besides itself.
ALLOWED = {
    "errors": set(),
    "core": set(),
    "demo": set(),
    "machine": set(),
    "checkpoint": set(),
    "wire": {"core", "errors", "machine", "checkpoint"},
    "transport": {"errors", "wire"},
    "planner": {"core", "errors"},
    "hardware": {"core", "errors", "machine"},
    "model": {"core", "errors", "machine", "checkpoint", "wire", "hardware", "planner"},
    "stage": {"core", "errors", "machine", "wire", "transport", "model"},
    # Weights on their way to a node's disk: no MLX, no ZeroMQ.
    "weights": {"core", "errors", "checkpoint", "wire", "hardware"},
    # What is noted of steps, and what is made of it: data and arithmetic.
    "tracing": {"core"},
    "engine": {"core", "errors", "wire", "transport", "tracing"},
    "cluster": {
        "core",
        "errors",
        "answers",
        "machine",
        "checkpoint",
        "wire",
        "transport",
        "hardware",
        "model",
        "engine",
        "planner",
        "weights",
        "demo",
        "tracing",
    },
    "answers": {"core", "errors"},
    "simulator": {"core", "errors", "wire", "planner", "engine", "cluster"},
    "generation": {"core", "errors", "answers", "cluster", "engine"},
    "embeddings": {"core", "errors", "cluster", "generation"},
    "api": {"core", "planner", "cluster", "embeddings", "generation"},
    "aio": {"core", "planner", "cluster", "embeddings", "generation"},
    "server": {
        "core",
        "errors",
        "answers",
        "hardware",
        "engine",
        "cluster",
        "embeddings",
        "generation",
        "machine",
        "planner",
        "tracing",
    },
    "cli": {
        "core",
        "errors",
        "machine",
        "checkpoint",
        "planner",
        "weights",
        "cluster",
        "generation",
        "api",
        "hardware",
        "server",
        "simulator",
        "tracing",
        "loadtest",
    },
    # Other servers are measured with it, too.
    "loadtest": {"errors"},
    "__init__": {"api", "cluster", "generation", "planner"},
    "__main__": {"cli"},
}
# Third-party package -> packages of ours that may import it.
OWNERS = {
    "zmq": {"transport"},
    "mlx": {"model", "stage"},
    "mlx_lm": {"model", "answers"},
    "llguidance": {"model"},
    "safetensors": {"model"},
    "huggingface_hub": {"model", "weights"},
    # Certificates for copying weights between nodes.
    "cryptography": {"weights"},
    "httpx": {"weights", "loadtest"},
    "fastapi": {"server"},
    "starlette": {"server"},
    "uvicorn": {"server"},
    "anyio": {"server"},
    # Bodies of requests; files that describe a rack.
    "pydantic": {"server", "cluster"},
    "jinja2": {"answers"},
    "fastapi_offline": {"server"},
    "prometheus_client": {"server"},
    "h11": {"server"},
    "typer": {"cli"},
    "rich": {"cli"},
    # Messages; files of our own.
    "msgspec": {"wire", "engine", "server", "cluster", "weights", "tracing", "loadtest"},
    "psutil": {"hardware"},
    "zeroconf": {"cluster"},
}
# Standard modules that start processes, and who may.
PROCESS_STARTERS = {
    "subprocess": {"cluster", "hardware"},
    "multiprocessing": set(),
    "pickle": set(),
}


@cache
def imports() -> tuple[tuple[str, str, str], ...]:
    """(package of ours, file, imported module) for every import in the source."""
    return tuple(_imports())


def _imports() -> Iterator[tuple[str, str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).parts
        package = parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((package, "/".join(parts), alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                yield package, "/".join(parts), node.module or ""
                if node.module == "tbcluster":
                    names = (f"tbcluster.{alias.name}" for alias in node.names)
                    yield from ((package, "/".join(parts), name) for name in names)


def test_every_package_is_in_the_table() -> None:
    assert {package for package, _, _ in imports()} <= set(ALLOWED)


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_arrows_run_one_way(package: str) -> None:
    for importer, file, module in imports():
        if importer == package and module.startswith("tbcluster."):
            target = module.split(".")[1]
            assert target == package or target in ALLOWED[package], f"{file} imports {module}"


@pytest.mark.parametrize(("third_party", "owners"), sorted({**OWNERS, **PROCESS_STARTERS}.items()))
def test_one_owner_for_each_third_party_package(third_party: str, owners: set[str]) -> None:
    for package, file, module in imports():
        if module.split(".")[0] == third_party:
            assert package in owners, f"{file} imports {module}"


def test_no_file_outgrows_its_purpose() -> None:
    long = {
        str(path.relative_to(SOURCE)): lines
        for path in SOURCE.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 400
    }
    assert not long
