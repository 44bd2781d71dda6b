"""What the user chose: the command line first, then the environment. The only reader of either.

Knows no model and no component. Read by app.py, which hands the values on.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from playground.command_line import LOCAL_HOST, Quantise, parser, port_number
from playground.limits import OPEN, PUBLIC, Limits

EVERY_HOST = "0.0.0.0"
LOOPBACK = (LOCAL_HOST, "localhost", "::1")

OPTIONS = "PLAYGROUND_OPTIONS"
"""The environment variable with options as on the command line, over which they rule: a Space starts app.py bare."""

FORWARDED = "FORWARDED_ALLOW_IPS"
"""The environment variable with whose word uvicorn takes for where a request comes from."""

USERS = "PLAYGROUND_USERS"
"""The environment variable with who may open the page: name:password, and commas."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`models`: ids or aliases for the first panels, empty for whatever suits the machine.

    `port`: None takes the first free one from 7860 on.
    `quantise`, `contexts`, `offload`: what is asked of the placement, as its PlanOptions explain.
    `adapters`: folders of LoRA adapters that the menus offer. `adapter_store`: where those of the Hub are kept.
    `typed_folders`: whether any folder may be typed as an adapter's: only where nobody else can open the page.
    `own_names_only`: whether the page answers to this machine's names alone: there too.
    `edit_templates`: whether chat templates may be typed, which are programs: there too, or where it was asked for.
    """

    models: tuple[str, ...] = ()
    catalogs: tuple[Path, ...] = ()
    host: str = LOCAL_HOST
    port: int | None = None
    open_browser: bool = False
    quantise: Quantise = "auto"
    contexts: int = 4
    offload: bool = False
    adapters: tuple[Path, ...] = ()
    adapter_store: Path = field(default_factory=lambda: _adapter_store({}))
    typed_folders: bool = False
    edit_templates: bool = False
    any_endpoint: bool = False
    own_names_only: bool = False
    endpoints: tuple[str, ...] = ()
    limits: Limits = OPEN
    proxies: int = 0
    users: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    zero_gpu: Literal["on", "rehearse", "off"] = "off"

    @property
    def for_strangers(self) -> bool:
        """Whether visitors are held to limits: then they choose among what the operator put there, and load nothing."""
        return self.limits != OPEN

    @classmethod
    def read(cls, arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
        """From `sys.argv` and `os.environ` unless others are given. A bad value ends the process with a sentence."""
        environment = os.environ if environment is None else environment
        options = parser()
        given = options.parse_args(_all_arguments(options, arguments, environment))
        on_spaces = "SPACE_ID" in environment
        host = given.host or environment.get("GRADIO_SERVER_NAME") or (EVERY_HOST if on_spaces else LOCAL_HOST)
        try:
            port = given.port or _optional_port(environment.get("GRADIO_SERVER_PORT", ""))
        except argparse.ArgumentTypeError as error:
            options.error(f"environment variable GRADIO_SERVER_PORT: {error}")
        strangers = on_spaces if given.public is None else given.public
        limits = replace(PUBLIC if strangers else OPEN, **dict(given.limit))
        users = _users(options, environment.get(USERS, ""))
        proxies = given.proxies if given.proxies is not None else int(on_spaces)
        # A page on loopback may stand behind a proxy, and whoever asks for these or for limits says so.
        in_front = on_spaces or proxies or users or environment.get("GRADIO_ROOT_PATH")
        only_here = host in LOOPBACK and not in_front and limits == OPEN
        return cls(
            models=given.models,
            catalogs=tuple(given.catalog),
            host=host,
            port=port,
            open_browser=given.browser and not on_spaces and has_desktop(environment),
            quantise=given.quantise,
            contexts=given.contexts,
            offload=given.offload,
            adapters=tuple(given.adapters),
            adapter_store=_adapter_store(environment),
            typed_folders=only_here,
            edit_templates=only_here or given.edit_templates,
            any_endpoint=only_here,
            own_names_only=only_here,
            endpoints=tuple(given.endpoints),
            limits=limits,
            proxies=proxies,
            users=users,
            zero_gpu=_zero_gpu(given.zero_gpu, environment),
        )


def read_secret(name: str, environment: Mapping[str, str] | None = None) -> SecretStr | None:
    """A server's key, by the name of its environment variable; None where it is not set, or empty."""
    value = (os.environ if environment is None else environment).get(name, "").strip()
    return SecretStr(value) if value else None


def believe_no_forwarded_address() -> None:
    """Have the server tell whom it heard from, until the environment says otherwise: what proxies add is read by us.

    By itself uvicorn believes whoever comes over loopback, such as through a tunnel that hands on what a client wrote.
    """
    os.environ.setdefault(FORWARDED, "")


def has_desktop(environment: Mapping[str, str], platform: str = os.name) -> bool:
    """Whether there is a screen to open a browser on."""
    if platform == "nt" or _is_mac():
        return True
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


def _is_mac() -> bool:
    return os.uname().sysname == "Darwin" if hasattr(os, "uname") else False


def _adapter_store(environment: Mapping[str, str]) -> Path:
    """Where adapters of the Hub are kept: what huggingface_hub sets aside for other programs, `assets` in HF_HOME.

    Whoever moved the Hub's downloads to a larger disk, or to the one that a Space keeps, meant these too.
    """
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = environment.get("HF_HOME") or os.path.join(cache, "huggingface")
    return Path(os.path.expanduser(home), "assets", "krutrim-kullm3-playground", "adapters")


def _all_arguments(
    options: argparse.ArgumentParser, arguments: Sequence[str] | None, environment: Mapping[str, str]
) -> Sequence[str]:
    """Those of the command line, then those of the environment."""
    line = sys.argv[1:] if arguments is None else arguments
    try:
        return [*line, *shlex.split(environment.get(OPTIONS, ""))]
    except ValueError as error:
        options.error(f"environment variable {OPTIONS}: {str(error).lower()}")


def _optional_port(text: str) -> int | None:
    return port_number(text) if text else None


def _zero_gpu(asked: str, environment: Mapping[str, str]) -> Literal["on", "rehearse", "off"]:
    if asked != "auto":
        return "rehearse" if asked == "rehearse" else "off"
    return "on" if environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true") else "off"


def _users(options: argparse.ArgumentParser, text: str) -> tuple[tuple[str, str], ...]:
    users = [tuple(part.strip().split(":", 1)) for part in text.split(",") if part.strip()]
    # Commas alone name nobody, and would let everybody in.
    if any(len(user) != 2 or not all(user) for user in users) or (text.strip() and not users):
        options.error(f"environment variable {USERS}: write name:password, with commas between users")
    return tuple((name, password) for name, password in users)
