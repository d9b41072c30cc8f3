"""`python -m benchmarks`: lists the benchmarks or runs one."""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Report, note

BENCHMARKS = {
    "single-stream": "decode speed through 1, 2 and 4 stages against mlx-lm; cost of a hop",
    "stage-memory": "peak memory of each stage of a 400 MB model cut in 4 against the whole",
    "full-pipeline": "many streams, long prompts, chats: 2 stages on 2 cores against mlx-lm",
    "http-overhead": "16 streams over HTTP against the same without it",
    "hostile-clients": "1,000 hostile requests beside one stream: its pace, memory, answers",
    "link-transport": "messages over an encrypted link, in trains of small frames and as they are",
    "encryption": "one stream through 2 stages on 2 machines: encrypted against in the clear",
    "neighbour-copy": "weights copied from a neighbour, verified, against plain TCP",
    "planning": "seconds to plan 61 layers on 8 unequal nodes, and 128 layers on 64",
    "calibration": "the cost model against published measurements (--input FILE.json)",
    "simulation": "simulated against real, 1 to 4 stages and 1 to 16 streams; its own speed",
    "fleet": "seconds to plan 1,000 and 100,000 nodes at many sites, and to route 100,000 requests",
    "unequal-rack": "two unequal nodes: the plan's layout against an even one, and its predictions",
    "recovery": "from the loss of a worker, a node or the coordinator to the next token, in parts",
    "energy": "a ternary BitNet beside the same-size float model: CPU time, and joules, a token",
    "observing": "16 streams with five dashboards open; metrics and tracing on against off",
    "demo-accuracy": "score of the bundled model on its held-out questions, through 2 stages",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit status is 1 where a bar is not met."""
    options = _parser().parse_args(arguments)
    if options.name is None:
        print("\n".join(f"{name:15} {line}" for name, line in BENCHMARKS.items()))
        return 0
    _set_environment()
    if options.input is not None:
        os.environ["TBCLUSTER_BENCH_INPUT"] = str(options.input)
    report = run(options.name, options.only, quick=options.quick)
    report.print()
    if options.json is not None:
        options.json.write_text(report.to_json(), encoding="utf-8")
    return 0 if report.is_met else 1


def run(name: str, only: Sequence[str] = (), *, quick: bool = False) -> Report:
    """Run one benchmark; each is a module that holds a function `run`. One that has parts takes the
    names of those to run, and whether to be quick."""
    module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
    parts = getattr(module, "PARTS", {})
    unknown = [part for part in only if part not in parts]
    if unknown or (quick and not parts):
        what = f"part {unknown[0]!r}" if unknown else "--quick"
        sys.exit(f"bench: {name} has no {what}; its parts: {', '.join(parts) or 'none'}")
    note(f"{name}: {BENCHMARKS[name]}")
    began = time.monotonic()
    report: Report = module.run(only, quick=quick) if parts else module.run()
    note(f"{name} took {time.monotonic() - began:,.0f} s")
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description="Without a name: list the benchmarks.", allow_abbrev=False
    )
    parser.add_argument("name", nargs="?", choices=list(BENCHMARKS), help="which one to run")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PART", help="a part of it; may be repeated"
    )
    parser.add_argument("--quick", action="store_true", help="small and few: to see that it runs")
    parser.add_argument("--input", type=Path, metavar="FILE", help="measurements, for calibration")
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
