"""The command line of gpu.py. Imports nothing heavy, so that a wrong word is refused at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

PARTS = ("processes", "threads", "graphs", "logits")


def parse(about: str | None, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes, on a GPU too")
    parser.add_argument("--tokens", type=positive, help="tokens of an answer")
    parser.add_argument("--repeats", type=positive, default=3, help="how often everything is measured")
    parser.add_argument("--layers", type=positive, help="of the logits' check; as many as fit in memory where left out")
    parser.add_argument("--skip", nargs="*", default=[], choices=PARTS, help="parts to leave out")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)
