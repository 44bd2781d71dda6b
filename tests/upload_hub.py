"""A small Hub on loopback that takes Spaces: makes them, keeps their settings, and takes commits.

What huggingface_hub asks when it creates a repository, sets variables, secrets and hardware, and commits. It also knows
the revisions of models. Files come in the commit itself, or weights apart, as git's large file storage takes them; the
Hub's newer storage it does not have.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from huggingface_hub import HfApi
from loopback import Loopback

from spaces_config.__main__ import main

TOKEN = "hf_of_the_test"
KRUTRIM, KULLM3 = "krutrim-ai-labs/Krutrim-1-instruct", "nlpai-lab/KULLM3"


@dataclass
class HeldSpace:
    """One Space: what its repository and its settings hold."""

    private: bool
    files: dict[str, bytes] = field(default_factory=lambda: {".gitattributes": b"", "README.md": b"new"})
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class UploadHub(Loopback):
    """spaces: by name. models: files of models by name. refusals: status by the path that is refused so.
    done: every change, in order, as "METHOD path". stores_weights: whether weights come apart, into `stored`.
    """

    spaces: dict[str, HeldSpace] = field(default_factory=dict)
    models: dict[str, list[str]] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    stores_weights: bool = False
    stored: dict[str, bytes] = field(default_factory=dict)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        return _Handler


class _Handler(BaseHTTPRequestHandler):
    served: UploadHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.+)?", path):
            self._model(match[1])
        elif match := re.fullmatch(r"/api/spaces/([^/]+/[^/]+?)(/tree/main)?", path):
            self._space_or_tree(match[1], bool(match[2]))
        else:
            self._refuse(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.split("?")[0]
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401)
        if status := self.served.refusals.get(path):
            return self._refuse(status)
        if not path.endswith(("/validate-yaml", "/preupload/main", "/objects/batch")):
            self.served.done.append(f"POST {path}")
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._places_for(json.loads(body)["objects"])
        if path == "/api/validate-yaml":
            return self._json({"warnings": [], "errors": []})
        match = re.fullmatch(r"/api/spaces/([^/]+/[^/]+)/(.+)", path)
        assert match, path
        return self._change(match[1], match[2], body)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.served.stored[hashlib.sha256(body).hexdigest()] = body
        self._json({})

    def _mode(self, path: str) -> str:
        return "lfs" if self.served.stores_weights and path.endswith(".safetensors") else "regular"

    def _places_for(self, objects: list[dict[str, Any]]) -> None:
        upload = {"upload": {"href": f"{self.served.url}/storage", "header": {}}}
        self._json({"transfer": "basic", "objects": [{**each, "actions": upload} for each in objects]})

    def _change(self, name: str, what: str, body: bytes) -> None:
        space = self.served.spaces[name]
        if what == "commit/main":
            return self._commit(name, [json.loads(line) for line in body.splitlines()])
        value = json.loads(body)
        if what == "variables":
            space.variables[value["key"]] = value["value"]
            return self._json({value["key"]: {"key": value["key"], "value": value["value"]}})
        if what == "secrets":
            space.secrets[value["key"]] = value["value"]
            return self._json({})
        if what == "hardware":
            space.hardware = value
            flavour = value["flavor"]
            return self._json({"stage": "BUILDING", "hardware": {"current": None, "requested": flavour}})
        assert what == "preupload/main", what
        files = [
            {"path": file["path"], "uploadMode": self._mode(file["path"]), "shouldIgnore": False, "oid": None}
            for file in value["files"]
        ]
        return self._json({"files": files})

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        assert (asked["type"], asked["sdk"]) == ("space", "gradio")
        if name in self.served.spaces:
            return self._json({"url": f"{self.served.url}/spaces/{name}"}, 409)
        self.served.spaces[name] = HeldSpace(private=asked.get("visibility") == "private")
        return self._json({"url": f"{self.served.url}/spaces/{name}"})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        space = self.served.spaces[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                space.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                space.files[value["path"]] = self.served.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del space.files[value["path"]]
            else:
                assert line["key"] == "header"
                space.commits.append(value["summary"])
        commit = "2" * 40
        self._json(
            {"success": True, "commitUrl": f"{self.served.url}/spaces/{name}/commit/{commit}", "commitOid": commit}
        )

    def _space_or_tree(self, name: str, tree: bool) -> None:
        space = self.served.spaces.get(name)
        if space is None:
            return self._refuse(404, "RepoNotFound")
        if not tree:
            return self._json({"id": name, "sha": "1" * 40, "private": space.private})
        files = sorted(space.files.items())
        return self._json([{"type": "file", "path": p, "size": len(c), "oid": p} for p, c in files])

    def _model(self, name: str) -> None:
        files = self.served.models.get(name)
        if files is None:
            return self._refuse(404, "RepoNotFound")
        return self._json({"id": name, "sha": commit_of(name), "siblings": [{"rfilename": each} for each in files]})

    def _json(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str = "") -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def commit_of(model: str) -> str:
    """Where a model's branch stands."""
    return hashlib.sha1(model.encode()).hexdigest()


def deploy(hub: UploadHub, *arguments: str, token: str = TOKEN) -> int:
    """What the command does, against this Hub."""
    return main(["deploy", *arguments], HfApi(endpoint=hub.url, token=token))
