"""Sealed connections through a proxy that corrupts, truncates, stalls, cuts, repeats and reorders
bytes: a connection may break by it, and no token is another."""

from collections.abc import Callable

import pytest

from tests.chaos.scene import COORDINATOR, ProxiedScene
from tests.chaos.streams import await_tokens, submitted
from tests.doubles.faults.proxy import TcpProxy
from tests.doubles.waiting import wait_until

ENOUGH = 5
HOPS = {"to stage 0": (COORDINATOR, 0), "between": (0, 1), "back": (1, COORDINATOR)}


@pytest.mark.parametrize(
    ("hop", "spoil"),
    [
        ("to stage 0", TcpProxy.corrupt),
        ("to stage 0", TcpProxy.replay),
        ("between", TcpProxy.corrupt),
        ("between", TcpProxy.truncate),
        ("between", TcpProxy.repeat),
        ("between", TcpProxy.reorder),
        ("back", TcpProxy.corrupt),
        ("back", TcpProxy.truncate),
    ],
    ids=lambda part: part.__name__ if callable(part) else part,
)
def test_bytes_go_wrong(proxied: ProxiedScene, hop: str, spoil: Callable[[TcpProxy], None]) -> None:
    proxy = proxied.places.proxies[HOPS[hop]]
    streams = submitted(proxied.cluster)
    await_tokens(streams, ENOUGH)
    spoil(proxy)
    wait_until(lambda: not proxy.is_spoiling, "it has happened")
    proxied.check(streams)


def test_a_connection_stalls_and_goes_on(proxied: ProxiedScene) -> None:
    proxy = proxied.places.proxies[HOPS["between"]]
    streams = submitted(proxied.cluster)
    await_tokens(streams, ENOUGH)
    proxy.stall()
    wait_until(proxied.is_still(streams), "nothing comes any more")
    proxy.resume()
    proxied.check(streams)


def test_a_connection_is_cut_and_comes_back(proxied: ProxiedScene) -> None:
    proxy = proxied.places.proxies[HOPS["between"]]
    streams = submitted(proxied.cluster)
    await_tokens(streams, ENOUGH)
    proxy.cut()
    proxy.mend()
    proxied.check(streams)
