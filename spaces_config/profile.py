"""What a Space is to be: a frozen value, read from a TOML file; ours stand in `profiles/`.

Called by everything here. Says what is wanted; whether it can be is for `check`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from model_registry.catalog_file import invalid, parse_toml, read_text
from playground.command_line import MAX_CONTEXTS, Quantise
from playground.errors import SpaceError
from playground.limits import MAX_PANELS
from playground.settings import Settings

PROFILES = Path(__file__).parent / "profiles"
TITLE = "Krutrim and KULLM3, side by side"
PAID_SLEEP_S = 3600
"""After how long without a visitor a Space that costs money sleeps, unless its profile says otherwise."""
SHORTEST_S = 300
NEVER = -1
"""How the Hub calls a Space that does not sleep."""

Colour = Literal["red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"]
Text = Annotated[str, Field(min_length=1)]
VariableName = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]


class _Stated(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preload(_Stated):
    """What is downloaded while the Space is built, so that it starts with it.

    files: "all" that the model needs, or those of its "tokenizer", where its weights are elsewhere.
    """

    model: str
    files: Literal["all", "tokenizer"] = "all"


class Secret(_Stated):
    """An environment variable of the Space that nobody may read there. `needed`: nothing works without it."""

    name: VariableName
    about: Text
    needed: bool = False


class Variable(_Stated):
    """An environment variable of the Space that everybody may read."""

    name: VariableName
    value: str
    about: Text


class Profile(_Stated):
    """One kind of Space.

    about: a sentence or two on what it is, for the Space's own page.
    short_description: one line for the Hub's lists, of at most 60 characters.
    hardware: the flavour, as `hardware.toml` has it.
    python_version, torch: where the platform's differ from ours; torch None is the one of requirements.txt.
    models: ids of those that the panels show. adapters: ids of those in the catalog that their menus offer.
    elsewhere: the models run on servers, which `deploy` is told; the Space runs none.
    quantise, contexts: as the command line has them.
    limits: those of `playground.limits` that differ from what a Space has by itself; `places` prompts are answered at a
        time, `waiting` more stand in line.
    startup_duration_timeout: how long the Hub waits for it to start, such as "1h".
    sleep_time_s: seconds without a visitor after which it sleeps, or NEVER; None is PAID_SLEEP_S on hardware that costs
        money, and what the Hub does by itself on other.
    notes: sentences for the Space's own page.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    about: Text
    title: Text = TITLE
    short_description: Text
    emoji: Text = "💬"
    color_from: Colour = "indigo"
    color_to: Colour = "green"
    hardware: str
    python_version: Annotated[str, Field(pattern=r"^3\.\d+(\.\d+)?$")] = "3.11"
    torch: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] | None = None
    models: Annotated[tuple[str, ...], Field(min_length=1, max_length=MAX_PANELS)]
    adapters: tuple[str, ...] = ()
    elsewhere: bool = False
    quantise: Quantise = "auto"
    contexts: Annotated[int, Field(ge=1, le=MAX_CONTEXTS)] = 4
    limits: dict[str, Annotated[int, Field(ge=1)]] = {}
    preload: tuple[Preload, ...] = ()
    secrets: tuple[Secret, ...] = ()
    variables: tuple[Variable, ...] = ()
    startup_duration_timeout: Annotated[str, Field(pattern=r"^[1-9]\d*[mh]$")] = "30m"
    sleep_time_s: int | None = None
    disable_embedding: bool = False
    notes: tuple[Text, ...] = ()

    @field_validator("sleep_time_s")
    @classmethod
    def _is_a_sleep(cls, value: int | None) -> int | None:
        if value is not None and value != NEVER and value < SHORTEST_S:
            raise ValueError(f"give {SHORTEST_S} seconds or more, or {NEVER} for never")
        return value

    def options(self, servers: Sequence[str] = ()) -> str:
        """What app.py is told, as a line of its command line: only what it would not do by itself.

        servers: paths of catalog files within the Space.
        """
        default = Settings()
        line = ["--models", ",".join(self.models)]
        line += ["--quantise", self.quantise] if self.quantise != default.quantise else []
        line += ["--contexts", str(self.contexts)] if self.contexts != default.contexts else []
        line += [word for name, value in self.limits.items() for word in ("--limit", f"{name}={value}")]
        line += [word for path in servers for word in ("--catalog", path)]
        return shlex.join(line)


def our_profiles() -> tuple[str, ...]:
    """The names of those that stand in `profiles/`."""
    return tuple(path.stem for path in sorted(PROFILES.glob("*.toml")))


def find_profile(name: str) -> Profile:
    """One of ours by its name, or anybody's by the path of its file, which ends in .toml.

    Raises:
        SpaceError: there is none of that name.
        CatalogError: the file is wrong: names key and line.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    if name not in our_profiles():
        raise SpaceError(f"There is no profile {name!r}, only {', '.join(our_profiles())}, or a TOML file of your own.")
    return read_profile(PROFILES / f"{name}.toml")


def read_profile(path: Path) -> Profile:
    """Read and validate one file. Raises CatalogError."""
    text = read_text(path, "profile")
    try:
        return Profile.model_validate(parse_toml(text, path))
    except ValidationError as error:
        raise invalid(path, text, error) from error
