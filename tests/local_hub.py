"""A small Hub on loopback: serves folders as repositories the way huggingface_hub asks for them.

Used by tests that must speak to a Hub; the process under test gets its address as HF_ENDPOINT.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

from loopback import Loopback

REFUSALS = {"gated": (403, "GatedRepo"), "missing": (404, "RepoNotFound"), "broken": (500, "")}


@dataclass
class LocalHub(Loopback):
    """A place to download from.

    repos: a repository's name to its folder, to its folders by revision, or to one of REFUSALS.
    cut_after: bytes after which one larger answer breaks off.
    stall_after: bytes after which one larger answer sends nothing more, and waits; `stalled` is set then.
    claimed: bytes by file name, where a file is to seem larger than it is.
    """

    repos: dict[str, Path | dict[str, Path] | str]
    cut_after: int | None = None
    stall_after: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    claimed: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    bytes_sent: int = 0
    _end: threading.Event = field(default_factory=threading.Event)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return _Handler

    def __exit__(self, *how: object) -> None:
        self._end.set()
        super().__exit__(*how)


class _Handler(BaseHTTPRequestHandler):
    served: LocalHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub, path = self.served, self.path.split("?")[0]
        hub.requests.append(f"{self.command} {path}")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
            self._api(match[1], match[2], unquote(match[3]))
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], unquote(match[2]), match[3])
        else:
            self._refuse(404, "EntryNotFound")

    def do_HEAD(self) -> None:
        self.do_GET()

    def _api(self, repo: str, what: str, revision: str) -> None:
        folder = self._folder(repo, revision)
        if folder is None:
            return
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if what == "revision":
            siblings = [{"rfilename": path.name} for path in files]
            self._json({"id": repo, "modelId": repo, "sha": commit_of(revision), "siblings": siblings})
        else:
            self._json([{"type": "file", "path": p.name, "size": self._size(p), "oid": _etag(p)} for p in files])

    def _size(self, path: Path) -> int:
        return self.served.claimed.get(path.name, path.stat().st_size)

    def _file(self, repo: str, revision: str, name: str) -> None:
        folder = self._folder(repo, revision)
        if folder is None:
            return
        path = folder / name
        if not path.is_file():
            self._refuse(404, "EntryNotFound")
            return
        content = path.read_bytes()
        start = int(re.findall(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[0])
        self.send_response(206 if start else 200)
        self._headers(path, self._size(path) - start, revision)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self._send(content[start:])

    def _send(self, content: bytes) -> None:
        hub = self.served
        if hub.cut_after is not None and len(content) > hub.cut_after:
            content, hub.cut_after = content[: hub.cut_after], None
            self.close_connection = True
        stalls = hub.stall_after is not None and len(content) > hub.stall_after
        if stalls:
            content, hub.stall_after = content[: hub.stall_after], None
        hub.bytes_sent += len(content)
        self.wfile.write(content)
        if stalls:
            hub.stalled.set()
            hub._end.wait()

    def _folder(self, repo: str, revision: str) -> Path | None:
        place = self.served.repos.get(repo, "missing")
        if isinstance(place, str):
            self._refuse(*REFUSALS[place])
            return None
        revisions = place if isinstance(place, dict) else {"main": place}
        folder = revisions.get(revision) or {commit_of(name): folder for name, folder in revisions.items()}.get(
            revision
        )
        if folder is None:
            self._refuse(404, "RevisionNotFound")
        return folder

    def _headers(self, path: Path, length: int, revision: str) -> None:
        self.send_header("ETag", f'"{_etag(path)}"')
        self.send_header("X-Repo-Commit", commit_of(revision))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(length))

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
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

    def log_message(self, format: str, *args: object) -> None:
        pass


def commit_of(revision: str) -> str:
    """The commit that a branch or tag stands for; a commit stands for itself."""
    return revision if re.fullmatch("[0-9a-f]{40}", revision) else hashlib.sha1(revision.encode()).hexdigest()


def _etag(path: Path) -> str:
    """The hash of the content, as the Hub has it for large files."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
