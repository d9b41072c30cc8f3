"""`python -m benchmarks`: lists the benchmarks or runs one."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Report

BENCHMARKS = {
    "single-stream": "decode speed through 1, 2 and 4 stages against mlx-lm; cost of a hop",
    "stage-memory": "peak memory of each stage of a 400 MB model cut in 4 against the whole",
    "demo-accuracy": "score of the bundled model on its held-out questions, through 2 stages",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit status is 1 where a bar is not met."""
    options = _parser().parse_args(arguments)
    if options.name is None:
        print("\n".join(f"{name:15} {line}" for name, line in BENCHMARKS.items()))
        return 0
    _set_environment()
    report = run(options.name)
    report.print()
    if options.json is not None:
        options.json.write_text(report.to_json(), encoding="utf-8")
    return 0 if report.is_met else 1


def run(name: str) -> Report:
    """Run one benchmark; each is a module that holds a function `run`."""
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    report: Report = module.run()
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description="Without a name: list the benchmarks.", allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", choices=list(BENCHMARKS), help="which one to run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    return parser


def _set_environment() -> None:
    """For this process and all that it starts, those of mlx-lm as well."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if sys.platform != "darwin":
        # On a CPU, MLX compiles with g++ at first use and is no faster for it.
        os.environ.setdefault("MLX_DISABLE_COMPILE", "1")


if __name__ == "__main__":
    sys.exit(main())
