"""All that a Space is made from, in one value: profile, catalog, commits, servers; and what follows from them.

Made by the command, read by `card`, `build`, `check` and `deploy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_registry.catalog_file import read_catalog_file
from model_registry.registry import Registry
from model_registry.spec import ModelSpec, ServerSpec
from playground.errors import SpaceError
from playground.settings import OPTIONS
from spaces_config.hardware import Hardware, hardware
from spaces_config.pins import Pin
from spaces_config.profile import PAID_SLEEP_S, Profile, Secret, Variable
from spaces_config.requirements import quantiser, requirements

ROOT = Path(__file__).parents[1]
"""The checkout that Spaces are built from."""

SERVERS = "servers"
"""The folder of a Space with the catalog files of its servers."""

OPTIONS_ARE = "What app.py is told, as on its command line."


@dataclass(frozen=True)
class Space:
    """`registry`: our catalog and the servers. `server_files`: where these were read from."""

    profile: Profile
    registry: Registry
    pins: tuple[Pin, ...] = ()
    server_files: tuple[Path, ...] = ()

    @property
    def hardware(self) -> Hardware:
        return hardware(self.profile.hardware)

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """Those that the panels show."""
        return tuple(self.registry.get(name) for name in self.profile.models)

    @property
    def models_here(self) -> tuple[ModelSpec, ...]:
        """Those of them that the Space itself runs."""
        return () if self.profile.elsewhere else tuple(spec for spec in self.models if spec.id not in self.served)

    @property
    def served(self) -> frozenset[str]:
        """Ids of the models that its servers answer for."""
        return frozenset(self.registry.get(server.serves).id for server in self.servers)

    @property
    def servers(self) -> tuple[ServerSpec, ...]:
        return self.registry.servers()

    @property
    def variables(self) -> tuple[Variable, ...]:
        paths = [f"{SERVERS}/{path.name}" for path in self.server_files]
        return (Variable(name=OPTIONS, value=self.profile.options(paths), about=OPTIONS_ARE), *self.profile.variables)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Those of the profile, then the keys of the servers."""
        stated = {secret.name for secret in self.profile.secrets}
        keys = {each.key: each for each in self.servers if each.key is not None and each.key not in stated}
        about = "The key of {name}, an inference server."
        needed = [Secret(name=key, about=about.format(name=each.name), needed=True) for key, each in keys.items()]
        return (*self.profile.secrets, *needed)

    @property
    def is_pinned(self) -> bool:
        """Whether all that is preloaded is at a commit."""
        return len(self.pins) == len(self.profile.preload) and all(pin.commit for pin in self.pins)

    @property
    def quantises(self) -> bool:
        """Whether weights may be loaded in 8 or 4 bits there."""
        return self.profile.quantise != "none" and self.hardware.gpus > 0 and not self.hardware.zero_gpu

    @property
    def sleep_time_s(self) -> int | None:
        """Seconds without a visitor after which it sleeps: what costs money does not run for ever unasked."""
        asked = self.profile.sleep_time_s
        return PAID_SLEEP_S if asked is None and not self.hardware.free else asked

    @property
    def requirements(self) -> str:
        """The text of its requirements.txt."""
        more = quantiser(ROOT / "pyproject.toml") if self.quantises else None
        return requirements(our_requirements(), self.profile.torch, more)

    def environment(self, repo: str = "me/space") -> dict[str, str]:
        """What the app finds in its environment there, but for the secrets."""
        given = {variable.name: variable.value for variable in self.variables}
        zero = {"SPACES_ZERO_GPU": "true"} if self.hardware.zero_gpu else {}
        return {**given, **zero, "SPACE_ID": repo, "SPACE_HOST": f"{repo.replace('/', '-').lower()}.hf.space"}


def our_requirements() -> str:
    """Raises SpaceError where this is no checkout."""
    path = ROOT / "requirements.txt"
    if not path.is_file():
        raise SpaceError(f"A Space is built from a checkout of the repository, and {ROOT} is none.")
    return path.read_text("utf-8")


def load_registry(server_files: Sequence[Path]) -> Registry:
    """Our catalog with these servers.

    Raises:
        CatalogError: a file is wrong.
        SpaceError: a file holds no server, or two have the same name.
    """
    for path in server_files:
        if not isinstance(read_catalog_file(path), ServerSpec):
            raise SpaceError(f"{path} describes no server: it lacks `serves`, the id of the model that it answers for.")
    names = [path.name for path in server_files]
    if len(names) != len(set(names)):
        raise SpaceError(f"Two server files have the same name, of {', '.join(names)}: rename one.")
    return Registry.load(*server_files)
