"""Servers of a catalog, for tests: their entries, files, and a fake that lists its models before it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_server import Answer, Asked, Reply, Stream, says

from model_registry.registry import Registry
from model_registry.spec import ServerSpec


def server_entry(url: str, serves: str = "demo-kullm3", server_id: str = "far", **facts: Any) -> ServerSpec:
    """A server called FAR, with a model and an adapter of it."""
    known = {"name": server_id.upper(), "models": ("base", "formal"), **facts}
    return ServerSpec(id=server_id, serves=serves, url=url, **known)


def catalog_with(*servers: ServerSpec) -> Registry:
    """The models of the real catalog, and these servers."""
    return Registry([*Registry.load()], servers=servers)


def write_server(path: Path, url: str, **facts: Any) -> Path:
    """A catalog file with `server_entry`."""
    known = server_entry(url, **facts).model_dump(exclude_none=True)
    lines = [f"{name} = {_toml(value)}" for name, value in known.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str([*value]) if isinstance(value, tuple) else f'"{value}"'


def lists(*models: str, answer: Answer = says("far ", "away")) -> Answer:  # noqa: B008 (a pure function)
    """A server that lists these models, and answers."""

    def reply(asked: Asked) -> Reply | Stream:
        if asked.path.endswith("/models"):
            return Reply(200, {"data": [{"id": model} for model in models]})
        return answer(asked)

    return reply
