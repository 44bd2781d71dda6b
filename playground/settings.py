"""What the user chose: the command line first, then the environment. The only reader of either.

Knows no model and no component. Read by app.py, which hands the values on.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

Quantise = Literal["auto", "none", "8-bit", "4-bit"]

MAX_PANELS = 4
MAX_CONTEXTS = 64

LOCAL_HOST = "127.0.0.1"
EVERY_HOST = "0.0.0.0"
LOOPBACK = (LOCAL_HOST, "localhost", "::1")
DEFAULT_PORT = 7860


@dataclass(frozen=True, slots=True)
class Settings:
    """`models`: ids or aliases for the first panels, empty for whatever suits the machine.

    `port`: None takes the first free one from 7860 on.
    `quantise`, `contexts`, `offload`: what is asked of the placement, as its PlanOptions explain.
    `adapters`: folders of LoRA adapters that the menus offer. `adapter_store`: where those of the Hub are kept.
    `typed_folders`: whether any folder may be typed as an adapter's: only where nobody else can open the page.
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
    typed_folders: bool = True
    edit_templates: bool = True

    @classmethod
    def read(cls, arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
        """From `sys.argv` and `os.environ` unless others are given. A bad value ends the process with a sentence."""
        environment = os.environ if environment is None else environment
        parser = _parser()
        given = parser.parse_args(arguments)
        on_spaces = "SPACE_ID" in environment
        host = given.host or environment.get("GRADIO_SERVER_NAME") or (EVERY_HOST if on_spaces else LOCAL_HOST)
        only_here = host in LOOPBACK and not on_spaces
        try:
            port = given.port or _optional_port(environment.get("GRADIO_SERVER_PORT", ""))
        except argparse.ArgumentTypeError as error:
            parser.error(f"environment variable GRADIO_SERVER_PORT: {error}")
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
        )


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Ask two to four language models the same thing, side by side and live.",
        epilog="`python -m model_registry` lists the models.",
    )
    parser.add_argument(
        "--models",
        type=_models,
        default=(),
        metavar="A,B",
        help="the models of the first panels, one to four ids and commas (default: what this machine can hold)",
    )
    parser.add_argument(
        "--catalog",
        type=_file,
        action="append",
        default=[],
        metavar="FILE",
        help="a TOML file with a model or an adapter of your own; may be given several times",
    )
    parser.add_argument(
        "--adapters",
        type=_folder,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder that holds a LoRA adapter, or several in folders of their own; may be given several times",
    )
    _add_placement(parser)
    parser.add_argument("--host", help=f"address to listen on (default: {LOCAL_HOST}, this machine only)")
    parser.add_argument("--port", type=_port, help=f"port to listen on (default: the first free from {DEFAULT_PORT})")
    parser.add_argument(
        "--edit-templates",
        action="store_true",
        help="let whoever opens the page write chat templates of their own; they run here, in a sandbox that keeps "
        "them from the server's data, not from taking all its time and memory (default: where only this machine can "
        "open the page)",
    )
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="do not open the browser")
    return parser


def _add_placement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quantise",
        choices=get_args(Quantise),
        default="auto",
        help="weights in 8 or 4 bits: auto only where they do not fit otherwise, none never, 8-bit and 4-bit always "
        "(default: auto)",
    )
    parser.add_argument(
        "--contexts",
        type=_contexts,
        default=4,
        metavar="N",
        help=f"answers of full length that each model has room for at once, 1 to {MAX_CONTEXTS} (default: 4)",
    )
    parser.add_argument(
        "--offload",
        action="store_true",
        help="let weights that fit on no GPU lie in the computer's memory; such a model is slow",
    )


def _models(text: str) -> tuple[str, ...]:
    models = tuple(part.strip() for part in text.split(",") if part.strip())
    if not 1 <= len(models) <= MAX_PANELS:
        raise argparse.ArgumentTypeError(f"give one to {MAX_PANELS} model ids separated by commas, not {text!r}")
    return models


def _contexts(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_CONTEXTS:
        raise argparse.ArgumentTypeError(f"give a number of contexts from 1 to {MAX_CONTEXTS}, not {text!r}")
    return int(text)


def _file(text: str) -> Path:
    path = Path(os.path.expanduser(text))
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return path


def _folder(text: str) -> Path:
    path = Path(os.path.expanduser(text))
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}")
    return path


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


def _optional_port(text: str) -> int | None:
    return _port(text) if text else None
