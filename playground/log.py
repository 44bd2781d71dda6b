"""How the playground's log looks, in the app's process and in those of the engines.

Called at the start of each process. Knows nothing else.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO, cast

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

TALKATIVE = {
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    "httpcore2": logging.INFO,  # below that it shows what servers send in their headers, which may repeat a key
    "ContinuousBatchingLogger": logging.WARNING,
    "bitsandbytes.backends.cpu.ops": logging.ERROR,  # warns of a faster kernel that it lacks, needed or not
}
"""Loggers of libraries that report normal business as news, and what of them is news."""

FIRST, LAST = 1_500, 500
"""Characters of a text that are written, of one that is longer than both."""


class Brief:
    """A stream that shortens what is written to it at once: Gradio prints values that it refuses, and anybody sends
    some, of any length."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        left_out = len(text) - FIRST - LAST
        if left_out > 0:
            text = f"{text[:FIRST]} … {left_out:,} characters … {text[-LAST:]}"
        return self._stream.write(text)


def shorten_stderr() -> None:
    """For the process that strangers send events to. Called after `configure_log`, whose own lines stay whole."""
    sys.stderr = cast(TextIO, Brief(sys.stderr))


def configure_log(level: int = logging.INFO) -> None:
    """Write to stderr what is of this level or above."""
    logging.basicConfig(level=level, format=FORMAT)
    for name, least in TALKATIVE.items():
        logging.getLogger(name).setLevel(max(level, least))
