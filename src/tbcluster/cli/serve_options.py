"""What the options of `tbcluster serve` may say together, before anything is begun."""

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

import typer

from tbcluster.cli.options import key_file_path
from tbcluster.errors import ListenError
from tbcluster.server.keys import KeyFile, KeyRing

MIN_BODY_BYTES = 1024


def check_options(
    *,
    max_body: int,
    idle_unload: float | None,
    cors_origins: Sequence[str],
    place: Sequence[str],
    excluded_by_place: bool,
) -> None:
    """Args:
        excluded_by_place: Whether an option was given that says what --place does.

    Raises:
        BadParameter: One of them cannot be, or contradicts another.
    """
    check_origins(cors_origins)
    if max_body < MIN_BODY_BYTES:
        raise typer.BadParameter(
            f"{max_body} bytes hold no request: allow {MIN_BODY_BYTES} or more",
            param_hint="--max-body",
        )
    if place and excluded_by_place:
        raise typer.BadParameter(
            "it says which nodes and how many stages by itself: leave out --local, --stages, "
            "--replicas and --plan",
            param_hint="--place",
        )
    if idle_unload is not None and not idle_unload > 0:
        raise typer.BadParameter(
            "it must be more than 0 minutes; leave it out for never", param_hint="--idle-unload"
        )


def key_ring(host: str, path: Path | None, *, require_keys: bool, insecure: bool) -> KeyRing | None:
    """The keys to ask for, or None where none is needed: only this machine can connect, or
    everyone was let in by name.

    Raises:
        ListenError: Keys are needed and there are none, or --insecure contradicts them.
        KeyFileError: The file cannot be used.
    """
    if insecure and require_keys:
        raise ListenError("--insecure and --require-keys contradict each other: leave one out")
    if insecure or (is_loopback(host) and not require_keys):
        return None
    file = KeyFile(key_file_path(path))
    ring = KeyRing(file)
    if not ring.keys:
        why = "--require-keys" if is_loopback(host) else f"{host} can be reached from elsewhere"
        raise ListenError(
            f"{why}, and there is no API key in {file.path}: make one with "
            "`tbcluster keys add NAME`, or let everyone in with --insecure"
        )
    return ring


def check_origins(origins: Sequence[str]) -> None:
    """Raises: BadParameter for what no browser sends as an origin."""
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
            raise typer.BadParameter(
                f"{origin!r} is no origin: give its scheme, host and port, such as "
                "http://localhost:3000",
                param_hint="--cors-origin",
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
