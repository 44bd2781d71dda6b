"""The command line: its options, and what each may hold. Read by `settings` alone."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

from playground.limits import MAX_PANELS, Limits

Quantise = Literal["auto", "none", "8-bit", "4-bit"]
ZeroGpu = Literal["auto", "rehearse", "off"]

MAX_CONTEXTS = 64
LOCAL_HOST = "127.0.0.1"
DEFAULT_PORT = 7860


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="app.py",
        description="Ask two to four language models the same thing, side by side and live.",
        epilog="`python -m model_registry` lists the models.",
    )
    options.add_argument(
        "--models",
        type=_models,
        default=(),
        metavar="A,B",
        help="the models of the first panels, one to four ids and commas (default: what this machine can hold)",
    )
    options.add_argument(
        "--catalog",
        type=_file,
        action="append",
        default=[],
        metavar="FILE",
        help="a TOML file with a model or an adapter of your own; may be given several times",
    )
    options.add_argument(
        "--adapters",
        type=_folder,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder that holds a LoRA adapter, or several in folders of their own; may be given several times",
    )
    _add_placement(options)
    options.add_argument("--host", help=f"address to listen on (default: {LOCAL_HOST}, this machine only)")
    options.add_argument(
        "--port", type=port_number, help=f"port to listen on (default: the first free from {DEFAULT_PORT})"
    )
    options.add_argument(
        "--edit-templates",
        action="store_true",
        help="let whoever opens the page write chat templates of their own; they run here, in a sandbox that keeps "
        "them from the server's data, not from taking all its time and memory (default: where only this machine can "
        "open the page)",
    )
    _add_strangers(options)
    _add_elsewhere(options)
    options.add_argument("--no-browser", dest="browser", action="store_false", help="do not open the browser")
    return options


def _add_placement(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--quantise",
        choices=get_args(Quantise),
        default="auto",
        help="weights in 8 or 4 bits: auto only where they do not fit otherwise, none never, 8-bit and 4-bit always "
        "(default: auto)",
    )
    options.add_argument(
        "--contexts",
        type=_contexts,
        default=4,
        metavar="N",
        help=f"answers of full length that each model has room for at once, 1 to {MAX_CONTEXTS} (default: 4)",
    )
    options.add_argument(
        "--offload",
        action="store_true",
        help="let weights that fit on no GPU lie in the computer's memory; such a model is slow",
    )


def _add_strangers(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--public",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="limits for strangers: lengths, prompts at a time and a minute, a line to wait in (default: on a Space)",
    )
    options.add_argument(
        "--limit",
        type=_limit,
        action="append",
        default=[],
        metavar="NAME=N",
        help=f"one limit, or NAME=none; names: {', '.join(LIMITS)}; may be given several times",
    )
    options.add_argument(
        "--proxies",
        type=_proxies,
        default=None,
        metavar="N",
        help="reverse proxies in front of the page, which tell a visitor's address (default: 1 on a Space, else 0)",
    )


def _add_elsewhere(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "--endpoint",
        dest="endpoints",
        type=_endpoint,
        action="append",
        default=[],
        metavar="URL",
        help="a server that may be chosen in a panel, such as http://10.0.0.7:8000/v1; may be given several times "
        "(where only this machine can open the page, any other may be typed too)",
    )
    options.add_argument(
        "--zero-gpu",
        choices=get_args(ZeroGpu),
        default="auto",
        help="answer in grants of a Space's ZeroGPU: auto where there is one; rehearse the same way here, on the CPU",
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


def port_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


LIMITS = tuple(field.name for field in fields(Limits))


def _limit(text: str) -> tuple[str, int | None]:
    name, _, value = text.partition("=")
    if name not in LIMITS:
        raise argparse.ArgumentTypeError(f"there is no limit {name!r}, only {', '.join(LIMITS)}")
    if value == "none":
        return name, None
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"a limit is {name}= and a whole number from 1, or none, not {text!r}")
    return name, int(value)


def _proxies(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 9:
        raise argparse.ArgumentTypeError(f"give a number of proxies from 0 to 9, not {text!r}")
    return int(text)


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f"give the base of an API, such as http://10.0.0.7:8000/v1, not {text!r}")
    return text.rstrip("/")
