"""`tbcluster invite`: tokens for machines that shall join."""

import json
import re
import time
from contextlib import closing
from typing import Annotated

import typer

from tbcluster.cli.loading import console
from tbcluster.cli.state import own_folder
from tbcluster.cluster.trust import HeadIdentity, JoinDesk, MemberFile, invite_node
from tbcluster.cluster.trust.invitation import DEFAULT_VALID_S

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
NAMES = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
MAX_VALID_S = 30 * 86400
LOOK_S = 0.2
# The last answer is on its way for that long at most.
FAREWELL_S = 2.0
WHILE_THEY_JOIN = "Here, `tbcluster serve` or `tbcluster invite --wait` has to run while they join."


def duration_s(text: str | float) -> float:
    """`90s`, `30m`, `24h` or `7d` in seconds, as which a number stands already."""
    if not isinstance(text, str):
        return text
    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration: write 30m, 24h or 7d")
    seconds = int(found[1]) * SECONDS[found[2]]
    if not 0 < seconds <= MAX_VALID_S:
        raise typer.BadParameter(f"{text} is too long or too short: up to 30d")
    return seconds


def lifetime(seconds: float) -> str:
    """In words, in the largest unit that divides it."""
    unit = next(unit for unit in "dhms" if seconds % SECONDS[unit] == 0)
    count = int(seconds) // SECONDS[unit]
    return f"{count} {NAMES[unit]}{'' if count == 1 else 's'}"


def invite(
    valid: Annotated[
        float,
        typer.Option(
            parser=duration_s,
            metavar="TIME",
            help="How long a token can be used, such as 30m or 7d.",
            show_default="24h",
        ),
    ] = DEFAULT_VALID_S,
    count: Annotated[int, typer.Option(min=1, max=256, help="How many tokens.")] = 1,
    wait: Annotated[
        bool, typer.Option("--wait", help="Admit machines until all tokens are used.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Make no token, and all unused ones worthless.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a token for each machine that shall join."""
    # It takes a while to import, which --help should not wait for.
    from tbcluster.cluster.rack.rack import head_of

    folder = own_folder()
    head = head_of(folder)
    members = MemberFile(folder)
    if cancel:
        members.cancel_invitations()
        console.print("No token that was not used can be used any more.")
        return
    tokens = [invite_node(head, members, valid) for _ in range(count)]
    if as_json:
        made = {"tokens": [one.encode() for one in tokens], "expires": tokens[-1].expires}
        typer.echo(json.dumps(made, indent=2))
    else:
        for token in tokens:
            typer.echo(token.encode())
        console.print(
            f"On each other machine, within {lifetime(valid)}, type `tbcluster join` and a token "
            "of its own. A token is a secret until it is used."
            + ("" if wait else f" {WHILE_THEY_JOIN}"),
            soft_wrap=True,
            markup=False,
        )
    if wait:
        _admit(head, members)


def _admit(head: HeadIdentity, members: MemberFile) -> None:
    """Until nobody is awaited any more."""
    known = {member.node_id for member in members.nodes()}
    with closing(JoinDesk(head, members)) as desk:
        desk.start()
        console.print("Waiting for machines to join; Ctrl-C ends that, and the tokens stay valid.")
        while True:
            is_last = members.open_invitations() == 0
            for member in members.nodes():
                if member.node_id not in known:
                    known.add(member.node_id)
                    console.print(f"{member.name} has joined.", markup=False)
            if is_last:
                break
            time.sleep(LOOK_S)
        time.sleep(FAREWELL_S)
