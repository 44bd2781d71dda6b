"""Runs a built folder the way the Hub does: its app_file as it is, in the folder, with a Space's environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from serving import START_S, free_port, stop_app

SYSTEM = ("PATH", "LANG", "TMPDIR")
"""What of this machine's environment a Space has too."""


@contextmanager
def running_space(folder: Path, environment: Mapping[str, str], python: str = sys.executable) -> Iterator[str]:
    """The address of the page, once it answers; everything ends with the block.

    environment: what the Space's settings and its kind give; nothing else of this one's comes along but SYSTEM.
    """
    port = free_port()
    process = subprocess.Popen(
        [python, "app.py"],
        cwd=folder,
        env={
            **{name: os.environ[name] for name in SYSTEM if name in os.environ},
            "HOME": str(folder.parent),
            "SYSTEM": "spaces",
            "GRADIO_SERVER_NAME": "0.0.0.0",
            "GRADIO_SERVER_PORT": str(port),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield _answering(process, port)
    finally:
        stop_app(process)


def _answering(process: subprocess.Popen[str], port: int) -> str:
    deadline = time.monotonic() + START_S
    address = f"http://127.0.0.1:{port}/"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return address
    process.kill()
    raise AssertionError(f"the Space does not answer:\n{process.communicate()[0]}")
