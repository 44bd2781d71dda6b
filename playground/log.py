"""How the playground's log looks, in the app's process and in those of the engines.

Called once at the start of each process. Knows nothing else.
"""

from __future__ import annotations

import logging

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

TALKATIVE = {
    "httpx": logging.WARNING,
    "httpx2": logging.WARNING,
    "httpcore2": logging.INFO,  # below that it shows what servers send in their headers, which may repeat a key
    "ContinuousBatchingLogger": logging.WARNING,
    "bitsandbytes.backends.cpu.ops": logging.ERROR,  # warns of a faster kernel that it lacks, needed or not
}
"""Loggers of libraries that report normal business as news, and what of them is news."""


def configure_log(level: int = logging.INFO) -> None:
    """Write to stderr what is of this level or above."""
    logging.basicConfig(level=level, format=FORMAT)
    for name, least in TALKATIVE.items():
        logging.getLogger(name).setLevel(max(level, least))
