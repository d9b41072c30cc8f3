"""Which of the coordinator's addresses answer: plain connections to all of them at once."""

import errno
import queue
import socket
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tbcluster.cluster.discovery.addresses import join_port, split_port

DIAL_S = 1.0
# For how long others may still answer once one has.
GRACE_S = 0.2


@dataclass(frozen=True, slots=True)
class Dialled:
    """What came of it.

    Attributes:
        answered: Numeric addresses, with ports, in the order asked for.
        failed: The system's error number, 0 for another reason, by address as it was asked for;
            what has not answered in time is not among them.
    """

    answered: tuple[str, ...] = ()
    failed: Mapping[str, int] = field(default_factory=dict)


def dial(addresses: Sequence[str], timeout_s: float = DIAL_S, grace_s: float = GRACE_S) -> Dialled:
    """Connect to all of these at once, names too. Whether it is the coordinator who answers shows
    when it is greeted."""
    told: queue.SimpleQueue[tuple[str, str | int]] = queue.SimpleQueue()
    for address in addresses:
        # Threads, since looking up a name cannot be stopped.
        threading.Thread(target=_attempt, args=(address, timeout_s, told), daemon=True).start()
    answers: dict[str, str] = {}
    failed: dict[str, int] = {}
    give_up = time.monotonic() + timeout_s
    while len(answers) + len(failed) < len(addresses):
        try:
            address, outcome = told.get(timeout=max(0.0, give_up - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(outcome, int):
            failed[address] = outcome
        else:
            answers[address] = outcome
            give_up = min(give_up, time.monotonic() + grace_s)
    ordered = dict.fromkeys(answers[address] for address in addresses if address in answers)
    return Dialled(tuple(ordered), failed)


def seems_blocked(failed: Collection[int], num_dialled: int, platform: str = sys.platform) -> bool:
    """Whether macOS seems to keep this process from the local network: there is no route to any
    of the addresses."""
    is_whole = num_dialled > 0 and len(failed) == num_dialled
    return platform == "darwin" and is_whole and set(failed) == {errno.EHOSTUNREACH}


def _attempt(
    address: str, timeout_s: float, told: "queue.SimpleQueue[tuple[str, str | int]]"
) -> None:
    try:
        with socket.create_connection(split_port(address, 0), timeout_s) as connection:
            told.put((address, _numeric(connection.getpeername())))
    except (OSError, ValueError) as error:  # UnicodeError: a name that can be none
        told.put((address, getattr(error, "errno", None) or 0))


def _numeric(peer: tuple[str, int] | tuple[str, int, int, int]) -> str:
    host, port = peer[0], peer[1]
    if len(peer) == 4 and peer[3] and "%" not in host:
        host = f"{host}%{socket.if_indextoname(peer[3])}"
    return join_port(host, port)
