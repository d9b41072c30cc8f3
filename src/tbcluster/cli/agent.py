"""`tbcluster agent`: makes this machine's memory and GPU part of the rack."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from tbcluster.cluster.agent.agent import Agent
from tbcluster.cluster.agent.ending import call_when_told_to_end
from tbcluster.cluster.rack_file import read_rack_file
from tbcluster.cluster.trust import TrustFolder


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
    follow_parent: Annotated[
        bool, typer.Option("--follow-parent", hidden=True, help="End when standard input ends.")
    ] = False,
) -> None:
    """Belong to the rack: report this machine, and run stages when the head node says so."""
    # A service's log is all that there is to read: each event is a line with its time.
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING, force=True
    )
    if not follow_parent:
        logging.getLogger("tbcluster").setLevel(logging.INFO)
    running = Agent(
        TrustFolder(),
        rack_file=read_rack_file(rack) if rack is not None else None,
        models=models.expanduser().absolute() if models is not None else None,
    )
    call_when_told_to_end(running.stop, follows_parent=follow_parent)
    running.run()
