"""`tbcluster agent`: makes this machine's memory and GPU part of the rack."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from tbcluster.cli.options import Memory
from tbcluster.cli.state import own_folder
from tbcluster.cli.terminal import log_to_terminal
from tbcluster.cluster.agent.agent import Agent
from tbcluster.cluster.agent.ending import call_when_told_to_end
from tbcluster.cluster.rack_file import read_rack_file
from tbcluster.hardware.open_files import raise_open_files

logger = logging.getLogger(__name__)

# Several sockets for each path that is watched, and pipes of the workers.
WANTED_FILES = 4096


def agent(
    rack: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A rack file, which lists the head node's addresses; for networks without "
            "multicast.",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where this machine keeps models, each in a folder of its own name; others are "
            "taken from the Hugging Face cache.",
            show_default=False,
        ),
    ] = None,
    memory: Memory = None,
    follow_parent: Annotated[
        bool,
        typer.Option("--follow-parent", hidden=True, help="End with who holds standard input."),
    ] = False,
) -> None:
    """Belong to the rack: report this machine, and run stages when the head node says so."""
    # A service's log is all that there is to read: each event is a line with its time.
    log_to_terminal("%(asctime)s %(levelname)s %(message)s")
    if not follow_parent:
        logging.getLogger("tbcluster").setLevel(logging.INFO)
    raise_open_files(WANTED_FILES)
    folder = models.expanduser().absolute() if models is not None else None
    if folder is not None and not folder.exists():
        logger.warning(
            "%s does not exist: models are taken from the Hugging Face cache until it does", folder
        )
    running = Agent(
        own_folder(),
        rack_file=read_rack_file(rack) if rack is not None else None,
        models=folder,
        memory_bytes=memory,
    )
    call_when_told_to_end(running.stop, running.be_left if follow_parent else None)
    running.run()
