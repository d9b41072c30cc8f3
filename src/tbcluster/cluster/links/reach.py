"""Which addresses answer at all: plain TCP connections to all of them at once."""

import errno
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace

from tbcluster.cluster.links.candidates import interface_of
from tbcluster.machine import Interface, Path

# Two attempts of TCP: the first packet to a sleeping Wi-Fi station is often lost.
REACH_S = 1.5
UNDER_WAY = {0, errno.EINPROGRESS, errno.EWOULDBLOCK}


def answering(
    paths: Sequence[Path], port: int, local: Sequence[Interface], timeout_s: float = REACH_S
) -> tuple[Path, ...]:
    """Those of `paths` where something listens on `port`, in their order; `interface` is now the
    one that the kernel chose."""
    with ExitStack() as opened, selectors.DefaultSelector() as selector:
        for path in paths:
            connection = _connect(path.address, port)
            if connection is not None:
                opened.enter_context(connection)
                selector.register(connection, selectors.EVENT_WRITE, (connection, path))
        found = dict(_connected(selector, time.monotonic() + timeout_s))
    return tuple(_leaving_by(found[path], path, local) for path in paths if path in found)


def _connect(address: str, port: int) -> socket.socket | None:
    """A connection that is on its way; None if there is no way at all."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError):  # a scope that is gone, no IPv6 here
        target = socket.getaddrinfo(address, port, family, socket.SOCK_STREAM)[0][4]
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        if connection.connect_ex(target) in UNDER_WAY:
            return connection
        connection.close()
    return None


def _connected(selector: selectors.BaseSelector, deadline: float) -> Iterator[tuple[Path, str]]:
    """Each path that is connected, with the address here that it leaves from."""
    while selector.get_map() and (left_s := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left_s):
            connection, path = key.data
            selector.unregister(connection)
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                with suppress(OSError):  # closed by the other end meanwhile
                    yield path, connection.getsockname()[0]


def _leaving_by(source: str, path: Path, local: Sequence[Interface]) -> Path:
    if "%" in path.address:
        return path
    return replace(path, interface=interface_of(source, local) or path.interface)
