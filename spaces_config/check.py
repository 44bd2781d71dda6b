"""Whether a built folder will run as a Space: everything that can be known before it is uploaded, told all at once.

Reads the folder as the Hub and the app would, rather than what it was made from. Called by the command.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from model_registry.catalog_file import read_catalog_file
from model_registry.spec import ModelSpec, ServerSpec
from playground.engines.remoting.connection import plain_key
from playground.engines.zero_gpu.capacity import GRANT, grant_options
from playground.errors import PlaygroundError
from playground.placement.plan import PlanOptions
from playground.placement.planner import plan
from playground.settings import Settings
from spaces_config import front_matter
from spaces_config.build import CATALOG
from spaces_config.card import front_matter as read_front_matter
from spaces_config.requirements import pins, runs_on
from spaces_config.space import ROOT, Space, our_requirements

ZERO_TORCHES = ("2.8.0", "2.9.1", "2.10.0", "2.11.0")
"""Those that ZeroGPU takes (Hub documentation, August 2026)."""

PORTS = (80, 443, 8080)
"""Those that a Space may reach elsewhere (Hub documentation, "Spaces overview")."""

OWN_NETWORKS = (".local", ".internal", ".lan", ".home.arpa", ".localhost")
"""How names end that nobody elsewhere can look up; a name without a dot is one too."""


def check(space: Space, folder: Path) -> list[str]:
    """What is in the way, a sentence each; empty where nothing is."""
    checks = (_front_matter, _requirements, _options, _placement, _disk, _adapters, _preload, _licences, _servers)
    return [problem for each in checks for problem in _told(each, space, folder)]


def check_secrets(space: Space, folder: Path, secrets: Mapping[str, SecretStr]) -> list[str]:
    """Those that the app would not start with, or could not send. By their names: what they hold is told nowhere."""
    if isinstance(_settings(space, folder), str):
        return []  # which `check` tells
    keys = {server.key for server in space.servers}
    about = {secret.name: secret.about for secret in space.secrets}
    return [
        f"The secret {name} of this environment is none that the app can read. {about[name]}"
        for name, value in secrets.items()
        if isinstance(_settings(space, folder, {name: value.get_secret_value()}), str)
        or (name in keys and not _is_key(value))
    ]


def _is_key(value: SecretStr) -> bool:
    try:
        plain_key(value)
    except PlaygroundError:
        return False
    return True


def remarks(space: Space) -> list[str]:
    """What is in nobody's way, but should be known before it is uploaded."""
    return [
        f"{server.name} has no key, and its file with its address lies in the Space's repository: unless the Space is "
        "private, everybody can read it there and ask the server."
        for server in space.servers
        if server.key is None
    ]


def _told(each: Callable[[Space, Path], list[str]], space: Space, folder: Path) -> list[str]:
    try:
        return each(space, folder)
    except PlaygroundError as error:
        return [str(error)]


def _front_matter(space: Space, folder: Path) -> list[str]:
    try:
        data = read_front_matter((folder / "README.md").read_text("utf-8"))
    except (OSError, ValueError) as error:
        return [f"README.md has no front matter that can be read: {error}."]
    found = front_matter.problems(data)
    found += front_matter.python_problems(data, runs_on(ROOT / "pyproject.toml"), space.hardware.zero_gpu)
    if not (folder / str(data.get("app_file"))).is_file():
        found.append(f"README.md: there is no {data.get('app_file')}, which is to be run.")
    installed = pins((folder / "requirements.txt").read_text("utf-8")).get("gradio")
    if data.get("sdk_version") != installed:
        found.append(f"README.md says Gradio {data.get('sdk_version')}, and requirements.txt {installed}.")
    return found


def _requirements(space: Space, folder: Path) -> list[str]:
    ours, theirs = pins(our_requirements()), pins((folder / "requirements.txt").read_text("utf-8"))
    found = [
        f"requirements.txt: {name} is {theirs.get(name, 'missing')}, and the code is made for {version}."
        for name, version in ours.items()
        if name != "torch" and theirs.get(name) != version
    ]
    torch = theirs.get("torch")
    if space.hardware.zero_gpu and torch not in ZERO_TORCHES:
        found.append(f"requirements.txt: ZeroGPU takes torch {', '.join(ZERO_TORCHES)}, not {torch}.")
    if space.quantises and "bitsandbytes" not in theirs:
        found.append("requirements.txt lacks bitsandbytes, and weights are to be loaded in 8 or 4 bits.")
    return found


def _settings(space: Space, folder: Path, secrets: Mapping[str, str] | None = None) -> Settings | str:
    """As the app will read them there, or why it will not, which may quote the secrets."""
    said = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stderr(said):
        try:
            return Settings.read([], {**space.environment(), **(secrets or {})})
        except SystemExit:
            return said.getvalue().strip().splitlines()[-1]


def _options(space: Space, folder: Path) -> list[str]:
    settings = _settings(space, folder)
    if isinstance(settings, str):
        return [f"app.py would not start with its options: {settings}."]
    if settings.models != space.profile.models:
        return [f"The options name the models {', '.join(settings.models)}, the profile {space.profile.models}."]
    return []


def _placement(space: Space, folder: Path) -> list[str]:
    """The planner's word on the models and the hardware, with the options that the app will have."""
    settings = _settings(space, folder)
    if isinstance(settings, str):
        return []
    if space.hardware.zero_gpu:
        options = grant_options(settings.contexts, settings.quantise, settings.offload)
        plan(space.models_here, [GRANT], options)
    else:
        options = PlanOptions(settings.contexts, settings.quantise, settings.offload, space.quantises)
        plan(space.models_here, space.hardware.devices, options)
    return []


def _disk(space: Space, _: Path) -> list[str]:
    room, needed = space.hardware.disk_gb, sum(map(_downloaded, space.models_here)) / 1e9
    if room is None or needed < room:
        return []
    return [f"The models take {needed:.0f} GB of the disk, and {space.profile.hardware} has {room:g} GB."]


def _downloaded(spec: ModelSpec) -> int:
    return 0 if spec.weights.hub is None else spec.weights.bytes


def _adapters(space: Space, _: Path) -> list[str]:
    offered = {adapter.id for spec in space.models for adapter in space.registry.adapters(spec.id)}
    stated = {space.registry.adapter(name).id for name in space.profile.adapters}
    found = [f"The adapter {name} fits none of the models that are shown." for name in sorted(stated - offered)]
    return [*found, *(f"The menus offer the adapter {name} too: name it." for name in sorted(offered - stated))]


def _preload(space: Space, folder: Path) -> list[str]:
    """What is preloaded is what the app will look for: same repository, same commit."""
    found = []
    for item in space.profile.preload:
        if item.model not in space.profile.models:
            found.append(f"{item.model} is preloaded, and not shown.")
        space.registry.get(item.model)  # which raises, with near misses
    for pin in space.pins:
        spec = read_catalog_file(folder / CATALOG / f"{pin.spec.id}.toml", ours=True)
        assert isinstance(spec, ModelSpec)
        wanted = pin.commit or pin.spec.weights.revision
        if (spec.weights.hub, spec.weights.revision) != (pin.spec.weights.hub, wanted):
            found.append(f"{pin.line} is preloaded, and the app would look for {spec.weights.revision}.")
    return found


def _licences(space: Space, folder: Path) -> list[str]:
    text = (folder / "README.md").read_text("utf-8")
    stated = ((spec.name, item.text) for spec in space.models for item in spec.licences)
    return [f"README.md does not name the licence of {name}, {what}." for name, what in stated if what not in text]


def _servers(space: Space, _: Path) -> list[str]:
    missing = [spec for spec in space.models if space.profile.elsewhere and spec.id not in space.served]
    found = [
        f'No server answers for {spec.id}: give one with --server FILE, a catalog file with serves = "{spec.id}".'
        for spec in missing
    ]
    return [*found, *(problem for server in space.servers for problem in _server(server))]


def _server(server: ServerSpec) -> list[str]:
    parts = urlsplit(server.url)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    found = []
    if port not in PORTS:
        found.append(f"{server.url}: a Space reaches other machines at the ports 80, 443 and 8080 only, not at {port}.")
    if _is_private(parts.hostname or ""):
        found.append(f"{server.url}: a Space cannot reach an address of your own network.")
    if server.key is not None and parts.scheme != "https":
        found.append(f"{server.url}: the key would travel for everybody to read; use https.")
    return found


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        name = host.removesuffix(".")
        return "." not in name or name.endswith(OWN_NETWORKS)
