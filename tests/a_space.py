"""Spaces for tests: one of our profiles with everything it is made from, and the folder of it."""

from __future__ import annotations

from pathlib import Path

from spaces_config.build import build
from spaces_config.pins import unpinned
from spaces_config.profile import Profile, find_profile
from spaces_config.space import Space, load_registry

SERVER = """id = "{model}-server"
name = "vLLM for {model}"
serves = "{model}"
url = "https://{model}.example.com/v1"
models = ["served"]
key = "SERVER_KEY"
"""


def server_file(folder: Path, model: str, **changes: str) -> Path:
    """A catalog file of a server that a Space may ask. `changes`: keys and what they are to be, as TOML has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line for line in SERVER.format(model=model).splitlines() if line.split(" = ")[0] not in changes]
    path = folder / f"{model}.toml"
    path.write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in changes.items())]) + "\n", "utf-8")
    return path


def servers_for(profile: Profile, folder: Path) -> tuple[Path, ...]:
    """A server for each model of a profile whose models run elsewhere."""
    return tuple(server_file(folder, model) for model in profile.models) if profile.elsewhere else ()


def a_space(name: str, folder: Path, **changes: object) -> Space:
    """One of our profiles, unpinned, with the servers that it needs. `changes` to the profile."""
    profile = find_profile(name).model_copy(update=changes)
    servers = servers_for(profile, folder / "given")
    registry = load_registry(servers)
    return Space(profile, registry, unpinned(profile, registry), servers)


def built(name: str, folder: Path, **changes: object) -> tuple[Space, Path]:
    """The same, and where it lies."""
    space, out = a_space(name, folder, **changes), folder / "built"
    build(space, out)
    return space, out
