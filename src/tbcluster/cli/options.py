"""Arguments that several commands share."""

import re
from math import inf
from pathlib import Path
from typing import Annotated

import typer

from tbcluster.cluster.kv_options import DEFAULT_DISK_BYTES
from tbcluster.hardware.folders import config_folder
from tbcluster.planner.plan import DEFAULT_CONTEXT, DEFAULT_STREAMS

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
MINUTES_A_YEAR = 365 * 24 * 60
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def byte_count(text: str | int) -> int:
    """`8GB`, `512 MiB`, `1.5g` or a plain number, in bytes."""
    found = SIZE.fullmatch(str(text).strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size: write 8GB, 512MB or 2GiB")
    units = BINARY_UNITS if found[3] else UNITS
    return int(float(found[1]) * units[found[2].lower()])


def time_limit(text: str | float) -> float:
    """Seconds, in figures; infinity for 0, which sets no limit."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < inf:
        raise typer.BadParameter(f"{text!r} is no time: write seconds, or 0 for no limit")
    return seconds or inf


def key_file_path(given: Path | None) -> Path:
    """Where API keys are kept: as given, or in the user's own folder."""
    return given.expanduser() if given is not None else config_folder() / "keys.json"


Model = Annotated[
    str | None,
    typer.Argument(
        help="A model folder or a Hugging Face id; the bundled model if left out.",
        show_default=False,
    ),
]
ManyModels = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="Model folders or Hugging Face ids, the first of which answers as soon as it is "
        "loaded; the bundled model if left out.",
        show_default=False,
    ),
]
ModelFolders = Annotated[
    list[Path] | None,
    typer.Option(
        "--models",
        metavar="FOLDER",
        help="Let the models in this folder be loaded while the server runs; may be repeated. "
        "Without MODEL none is loaded at first.",
        show_default=False,
    ),
]
HeldModels = Annotated[
    bool,
    typer.Option(
        "--models-held",
        help="The same with the models in the Hugging Face cache and in tbcluster's own store.",
    ),
]
LoadOnUse = Annotated[
    bool,
    typer.Option(
        "--load-on-use",
        help="Load a model when a request names it; idle ones make room for it.",
    ),
]
MaxModels = Annotated[
    int | None,
    typer.Option(
        "--models-max",
        min=1,
        help="Most models that are loaded at once (as many as fit).",
        show_default=False,
    ),
]
IdleUnload = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=MINUTES_A_YEAR,
        metavar="MINUTES",
        help="Unload a model that nobody has used for so long (never).",
        show_default=False,
    ),
]
Stages = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Cut the model into this many stage processes, each replica if --replicas is given, "
        "too (on a rack the best number, on one machine two, where its layers allow).",
        show_default=False,
    ),
]
Memory = Annotated[
    int | None,
    typer.Option(
        "--memory",
        parser=byte_count,
        metavar="SIZE",
        help="The most that models may take on this machine, weights and KV caches together, such "
        "as 16GB; what the system recommends if not given.",
        show_default=False,
    ),
]
KvMemory = Annotated[
    int | None,
    typer.Option(
        "--kv-memory",
        parser=byte_count,
        metavar="SIZE",
        help="Memory of each stage for KV caches, such as 8GB; a share of what is left if not "
        "given.",
        show_default=False,
    ),
]
Bits = Annotated[
    int | None,
    typer.Option(
        "--bits",
        metavar="BITS",
        help="Plan as if its weights had so many bits: 2, 3, 4, 5, 6, 8, or 16 for unpacked ones "
        "(what they have).",
        show_default=False,
    ),
]
KvBits = Annotated[
    int | None,
    typer.Option(
        "--kv-bits", help="Quantize KV caches to 8 or 4 bits; such sequences decode one by one."
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="TOKENS",
        help="Promise this much context, prompt and answer together, to each stream "
        f"({DEFAULT_CONTEXT:,}, or what fits).",
        show_default=False,
    ),
]
Streams = Annotated[
    int | None,
    typer.Option(
        min=1,
        help=f"Promise that context to so many streams at once ({DEFAULT_STREAMS}).",
        show_default=False,
    ),
]
Replicas = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Load so many copies of the model, each on nodes of its own (the best number).",
        show_default=False,
    ),
]
PlanPath = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        metavar="FILE",
        help="Place the layers as this file says, which `tbcluster plan --save` has written.",
        show_default=False,
    ),
]
PrefixCache = Annotated[
    bool, typer.Option(help="Start prompts from the KV caches of known prefixes.")
]
PrefixFolder = Annotated[
    Path | None,
    typer.Option(
        help="Keep known prefixes in this folder too, so that they survive a restart. It then "
        "holds what users wrote.",
        show_default=False,
    ),
]
PrefixDisk = Annotated[
    int,
    typer.Option(
        parser=byte_count,
        metavar="SIZE",
        help="How much the prefixes in that folder may take.",
        show_default=f"{DEFAULT_DISK_BYTES // 10**9}GB",
    ),
]
MaxTokens = Annotated[int, typer.Option(min=1, help="Most tokens to generate.")]
Temperature = Annotated[
    float, typer.Option("--temp", "--temperature", min=0.0, help="0 is greedy.")
]
TopP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Nucleus sampling, above 0; 1 keeps all.")
]
TopK = Annotated[int, typer.Option(min=0, help="Keep the k likeliest tokens; 0 keeps all.")]
MinP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Drop tokens below this share of the likeliest.")
]
Seed = Annotated[int | None, typer.Option(help="Equal seeds give equal text.", show_default=False)]
System = Annotated[str | None, typer.Option(help="System message of the chat.", show_default=False)]
Keys = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        envvar="TBCLUSTER_KEYS",
        metavar="FILE",
        help="The file of API keys (keys.json in your own settings folder).",
        show_default=False,
    ),
]
RequestTimeout = Annotated[
    float,
    typer.Option(
        parser=time_limit,
        metavar="SECONDS",
        help="Most seconds until an answer's last token; 0 for any time.",
        show_default="0",
    ),
]
QueueTimeout = Annotated[
    float,
    typer.Option(
        parser=time_limit,
        metavar="SECONDS",
        help="Most seconds until an answer's first token; 0 for any time.",
        show_default="600",
    ),
]
