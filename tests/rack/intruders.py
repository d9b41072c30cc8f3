"""What strangers can try on a port: with no key, with a key of their own, with the wrong server's
key, in plain text."""

import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import zmq

from tbcluster.machine import Machine
from tbcluster.transport.curve import be_client, new_keys
from tbcluster.wire.control import CurveKeys
from tbcluster.wire.messages import Step, encode_step
from tbcluster.wire.operations import DropCache
from tbcluster.wire.rack import RACK_PROTOCOL, AskRack, Hello, encode_message
from tests.doubles.namespaces import Network
from tests.doubles.tls_peers import TlsPeer

# A handshake takes some milliseconds; an answer would not be much later.
PATIENCE_S = 1.5
# What ZeroMQ says to anyone before it knows who that is.
GREETING_BYTES = 64
PLAIN_TEXT = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(200)
ASKED_FILE = b"GET /owner%2Ftiny/main/config.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
Address = tuple[str, int]


def messages() -> list[list[bytes]]:
    """What would matter if anyone listened."""
    machine = Machine("intruder", "Linux", "x86_64", "0.1.0", "3.11.0")
    hello = Hello(RACK_PROTOCOL, "0.1.0", "an incarnation", machine, 1, "/tmp", 0)
    drop = encode_step(Step(1, 0, tuple(DropCache(cache) for cache in range(64))))
    return [[encode_message(hello)], [encode_message(AskRack())], [bytes(part) for part in drop]]


def answers_to_zeromq(
    network: Network,
    node: str,
    addresses: Sequence[Address],
    server_keys: Sequence[str],
    own_keys: CurveKeys | None = None,
) -> list[str]:
    """Say everything to every port, from this node: in the clear, and by CURVE with these keys (or
    new ones) to each of the server keys and to a wrong one. Gives what came back, told in words."""
    keys = own_keys or new_keys()
    ways = [None, *server_keys, new_keys().public]
    with _context_on(network, node) as context, ExitStack() as stack:
        poller = zmq.Poller()
        asked: dict[zmq.Socket[bytes], str] = {}
        for host, port in addresses:
            for server_key in ways:
                dealer = context.socket(zmq.DEALER)
                stack.callback(dealer.close, 0)
                if server_key is not None:
                    be_client(dealer, keys, server_key)
                dealer.connect(f"tcp://{host}:{port}")
                # One that was refused meanwhile takes no more: to wait for it would have no end.
                with suppress(zmq.Again):
                    for message in messages():
                        dealer.send_multipart(message, zmq.DONTWAIT)
                poller.register(dealer, zmq.POLLIN)
                asked[dealer] = f"{host}:{port}, asked with {server_key or 'no key'}"
        ready = dict(poller.poll(round(PATIENCE_S * 1e3)))
        return [
            f"{what}: {one.recv_multipart(zmq.DONTWAIT)!r}"
            for one, what in asked.items()
            if one in ready
        ]


def answers_to_plain_text(
    network: Network, node: str, addresses: Sequence[Address]
) -> dict[Address, bytes]:
    """Say something in plain text to every port, from this node; gives what each one answers until
    it closes the connection."""
    with network.inside(node), ExitStack() as stack:
        clients = {
            address: stack.enter_context(socket.create_connection(address, PATIENCE_S))
            for address in addresses
        }
        for client in clients.values():
            client.sendall(PLAIN_TEXT)
        give_up = time.monotonic() + PATIENCE_S
        return {address: _heard(client, give_up) for address, client in clients.items()}


def answers_to_tls(
    network: Network, node: str, addresses: Sequence[Address], folder: Path
) -> dict[Address, bytes]:
    """Ask every port for a model's file, inside TLS and with a certificate of one's own; gives what
    each one that speaks TLS answers. A file in `folder` holds the certificate."""
    own = TlsPeer.at(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(*own.files)
    answers = {}
    for address in addresses:
        with (
            network.inside(node),
            suppress(OSError),
            socket.create_connection(address, PATIENCE_S) as raw,
            context.wrap_socket(raw) as client,
        ):
            # TLS 1.3's client is done before the server has refused it.
            answers[address] = b""
            client.sendall(ASKED_FILE)
            answers[address] = client.recv(4096)
    return answers


def _heard(client: socket.socket, give_up: float) -> bytes:
    heard = b""
    try:
        while (left := give_up - time.monotonic()) > 0:
            client.settimeout(left)
            part = client.recv(4096)
            if not part:
                break
            heard += part
    except (TimeoutError, ConnectionError):
        pass
    return heard


@contextmanager
def _context_on(network: Network, node: str) -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    with network.inside(node):
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            yield context
        finally:
            context.destroy(linger=0)
