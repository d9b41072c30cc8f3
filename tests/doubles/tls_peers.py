"""Machines with certificates, and the handshakes between them."""

import http.client
import socket
import ssl
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tbcluster.weights.answering import HeldFile
from tbcluster.weights.tls import client_context, new_certificate

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class TlsPeer:
    """A machine's certificate, and the files that it is in."""

    certificate: str
    files: tuple[str, str]

    @classmethod
    def at(cls, folder: Path) -> Self:
        """A new one, whose files are in this folder."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / "certificate.pem", folder / "key.pem"
        made = new_certificate()
        for path, text in zip(paths, made, strict=True):
            path.write_text(text)
        return cls(made[0], (str(paths[0]), str(paths[1])))

    def connect(self, port: int, accepted: Iterable[str]) -> ssl.SSLSocket:
        """A connection to a server on this machine that shows one of these certificates."""
        raw = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        return client_context(self.files, accepted).wrap_socket(raw)

    def get(
        self, port: int, accepted: Iterable[str], path: str, byte_range: str | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one answer."""
        with closing(self.http(port, accepted)) as client:
            return ask(client, path, byte_range)

    def http(self, port: int, accepted: Iterable[str]) -> http.client.HTTPSConnection:
        """The same for HTTP."""
        context = client_context(self.files, accepted)
        return http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=context)


def ask(
    client: http.client.HTTPConnection, path: str, byte_range: str | None = None
) -> tuple[int, bytes]:
    """Status and body of an answer."""
    client.request("GET", path, headers={} if byte_range is None else {"Range": byte_range})
    response = client.getresponse()
    return response.status, response.read()


class ShelfDouble:
    """Files of one model, of which the parts are there that the test says."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str, str], HeldFile] = {}
        self.ledgers: dict[tuple[str, str], Path] = {}

    def put(self, name: str, path: Path, *ranges: tuple[int, int]) -> None:
        """A file of org/tiny, revision abc."""
        held = HeldFile(path, path.stat().st_size, ranges)
        self.files["org/tiny", "abc", name] = held

    def find(self, model: str, revision: str, file: str) -> HeldFile | None:
        return self.files.get((model, revision, file))

    def ledger(self, model: str, revision: str) -> HeldFile | None:
        path = self.ledgers.get((model, revision))
        if path is None:
            return None
        size = path.stat().st_size
        return HeldFile(path, size, ((0, size),))
