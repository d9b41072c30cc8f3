"""A hub that speaks Hugging Face's protocol far enough for its own client and ours.

    python -m tests.doubles.hub --folder FOLDER --host 127.0.0.1 --port 0 --log FILE

Below the folder, `owner/name/` is a repository. The first line on standard output is the address;
each answer with a body is a JSON line of the log.
"""

import argparse
import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

BLOCK_BYTES = 64 * 1024
_API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?")
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_CDN = re.compile(r"/cdn/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Mischief:
    """What goes wrong, and how fast things go.

    Attributes:
        cuts: So many answers end after half of their bytes.
        statuses: These are the next answers' to requests for files.
        corrupt: In these files the byte at this offset is wrong, once.
        bytes_per_s: Of each connection; 0 for as fast as can be.
        cdn: Address of another host that files are answered from by a redirect.
    """

    cuts: int = 0
    statuses: list[int] = field(default_factory=list)
    corrupt: dict[str, int] = field(default_factory=dict)
    bytes_per_s: float = 0.0
    cdn: str = ""


class Repository:
    """A folder as the hub sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """By name: size, git's hash and, of large files, the SHA-256."""
        found = {}
        for path in sorted(self.path.rglob("*")):
            if not path.is_file():
                continue
            content = path.read_bytes()
            name = path.relative_to(self.path).as_posix()
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324
            found[name] = {"rfilename": name, "size": len(content), "blobId": blob}
            if path.suffix == ".safetensors":
                digest = hashlib.sha256(content).hexdigest()
                found[name]["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        return found

    @cached_property
    def commit(self) -> str:
        """Of all its files."""
        return hashlib.sha1(json.dumps(self.files).encode()).hexdigest()  # noqa: S324

    def etag(self, name: str) -> str:
        """As the hub has it."""
        entry = self.files[name]
        return str(entry["lfs"]["sha256"] if "lfs" in entry else entry["blobId"])


class HubServer(ThreadingHTTPServer):
    """Serves until the block ends.

    Args:
        token: Whoever does not show it sees nothing; None for all.
        log: File for a JSON line with each answer.

    Attributes:
        sent: Bytes of bodies, by (client's address, file).
        num_connections: So many were made.
        seen_tokens: Authorization of each request for a file, None for none.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        folder: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        token: str | None = None,
        log: Path | None = None,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self.folder = folder
        self.token = token
        self.mischief = Mischief()
        self.lock = threading.Lock()
        self.sent: Counter[tuple[str, str]] = Counter()
        self.num_connections = 0
        self.seen_tokens: list[str | None] = []
        self._log = log
        self._repositories: dict[str, Repository] = {}
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        host = self.server_address[0]
        shown = f"[{host!s}]" if ":" in str(host) else host
        return f"http://{shown!s}:{self.server_port}"

    @property
    def sent_bytes(self) -> int:
        """Of all bodies of files."""
        with self.lock:
            return sum(self.sent.values())

    def sent_of(self, file: str) -> int:
        """Bytes of one file, to all."""
        with self.lock:
            return sum(count for (_, name), count in self.sent.items() if name == file)

    def repository(self, name: str) -> Repository | None:
        """The one of this name."""
        with self.lock:
            path = self.folder / name
            if ".." in name or not path.is_dir():
                return None
            return self._repositories.setdefault(name, Repository(path))

    def note(self, client: str, file: str, first: int, count: int) -> None:
        """So many bytes were sent."""
        with self.lock:
            self.sent[client, file] += count
            if self._log is not None:
                line = {"client": client, "file": file, "first": first, "bytes": count}
                with self._log.open("a") as log:
                    log.write(json.dumps(line) + "\n")

    def process_request(self, request: object, client_address: object) -> None:
        """One more connection."""
        self.num_connections += 1
        super().process_request(request, client_address)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none of ours."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HubServer

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, has_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := _CDN.fullmatch(path):
            self._file(*found.groups(), has_body=has_body, is_cdn=True)
        elif self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._refuse(401, "GatedRepo" if "gated" in path else "RepoNotFound")
        elif found := _API.fullmatch(path):
            self._api(*found.groups())
        elif found := _RESOLVE.fullmatch(path):
            self._file(*found.groups(), has_body=has_body, is_cdn=False)
        else:
            self._refuse(404, "RepoNotFound")

    def _api(self, name: str, what: str | None, revision: str | None) -> None:
        repository = self.server.repository(name)
        if repository is None:
            self._refuse(404, "RepoNotFound")
        elif revision not in (None, "main", repository.commit):
            self._refuse(404, "RevisionNotFound")
        elif what == "tree":
            entries = [
                {
                    "type": "file",
                    "path": file["rfilename"],
                    "size": file["size"],
                    "oid": file["blobId"],
                    **(
                        {"lfs": {"oid": file["lfs"]["sha256"], **file["lfs"]}}
                        if "lfs" in file
                        else {}
                    ),
                }
                for file in repository.files.values()
            ]
            self._json(entries)
        else:
            query = parse_qs(urlsplit(self.path).query)
            siblings = list(repository.files.values())
            if "blobs" not in query:
                siblings = [{"rfilename": file["rfilename"]} for file in siblings]
            self._json(
                {"id": name, "modelId": name, "sha": repository.commit, "siblings": siblings}
            )

    def _file(self, name: str, revision: str, file: str, *, has_body: bool, is_cdn: bool) -> None:
        repository = self.server.repository(name)
        mischief = self.server.mischief
        with self.server.lock:
            self.server.seen_tokens.append(self.headers["Authorization"])
            status = mischief.statuses.pop(0) if mischief.statuses else 0
        if status:
            self._refuse(status, "")
        elif repository is None:
            self._refuse(404, "RepoNotFound")
        elif revision not in ("main", repository.commit):
            self._refuse(404, "RevisionNotFound")
        elif file not in repository.files:
            self._refuse(404, "EntryNotFound")
        elif mischief.cdn and not is_cdn:
            self.send_response(302)
            self._describe(repository, file)
            self.send_header("Location", f"{mischief.cdn}/cdn/{name}/{repository.commit}/{file}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._send(repository, file, has_body=has_body)

    def _describe(self, repository: Repository, file: str) -> None:
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("ETag", f'"{repository.etag(file)}"')
        if "lfs" in repository.files[file]:
            self.send_header("X-Linked-Etag", f'"{repository.etag(file)}"')
            self.send_header("X-Linked-Size", str(repository.files[file]["size"]))

    def _send(self, repository: Repository, file: str, *, has_body: bool) -> None:
        size = repository.files[file]["size"]
        first, end = 0, size
        asked = _RANGE.fullmatch(self.headers["Range"] or "")
        if asked:
            first = int(asked[1])
            end = min(size, int(asked[2]) + 1) if asked[2] else size
            if first >= size:
                self._refuse(416, "")
                return
        self.send_response(206 if asked else 200)
        self._describe(repository, file)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{size}")
        self.end_headers()
        if has_body:
            self._body(repository.path / file, file, first, end)

    def _body(self, path: Path, file: str, first: int, end: int) -> None:
        mischief = self.server.mischief
        with self.server.lock:
            is_cut = mischief.cuts > 0 and end - first > BLOCK_BYTES
            mischief.cuts -= is_cut
            bad = mischief.corrupt.get(file)
            if bad is not None and first <= bad < end:
                del mischief.corrupt[file]
            else:
                bad = None
        stop = (first + end) // 2 if is_cut else end
        with path.open("rb") as content:
            content.seek(first)
            while first < stop:
                block = bytearray(content.read(min(BLOCK_BYTES, stop - first)))
                if bad is not None and first <= bad < first + len(block):
                    block[bad - first] ^= 0xFF
                # Counted first: a client may be done, and its test look, before write returns.
                self.server.note(str(self.client_address[0]), file, first, len(block))
                self.wfile.write(block)
                first += len(block)
                if mischief.bytes_per_s:
                    time.sleep(len(block) / mischief.bytes_per_s)
        self.close_connection = self.close_connection or is_cut

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--bytes-per-s", type=float, default=0.0)
    options = parser.parse_args()
    server = HubServer(options.folder, options.host, options.port, log=options.log)
    server.mischief.bytes_per_s = options.bytes_per_s
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
