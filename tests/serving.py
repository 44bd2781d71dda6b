"""Runs the page for a test: in this process on a scripted pool, or as the user's own command line."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import Any

import gradio as gr
from fakes import FakePool

from playground.settings import Settings
from playground.ui.build import build, launch_arguments

ROOT = Path(__file__).parents[1]
START_S = 180


@contextmanager
def serving(
    pool: FakePool, models: Sequence[str], port: int | None = None, edit_templates: bool = True, **options: Any
) -> Iterator[str]:
    """The address of the page, in this process; at any free port if none is given. `options` are of Settings."""
    with serving_page(pool, models, port, edit_templates, **options) as page:
        yield page.local_url


@contextmanager
def serving_page(
    pool: FakePool, models: Sequence[str], port: int | None = None, edit_templates: bool = True, **options: Any
) -> Iterator[gr.Blocks]:
    """The same, as Gradio has it."""
    settings = Settings(port=port or free_port(), edit_templates=edit_templates, **options)
    with ThreadPoolExecutor(1) as thread:  # this one may have Playwright's loop running
        page = thread.submit(lambda: asyncio.run(_launch(pool, models, settings))).result()
    try:
        yield page
    finally:
        page.close(verbose=False)


async def _launch(pool: FakePool, models: Sequence[str], settings: Settings) -> gr.Blocks:
    """In a running loop, for outside of one Gradio makes a new loop for every lock, and closes none of them."""
    page = build(pool.registry, pool, models, settings)  # type: ignore[arg-type]
    page.launch(**launch_arguments(settings))
    return page


def free_port() -> int:
    """Below those that systems give to whoever connects, so that it is still free when a server has started."""
    while True:
        port = SystemRandom().randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def run_app(port: int, *arguments: str) -> subprocess.Popen[str]:
    """`python app.py` as a user runs it, once it answers."""
    return run_server(port, "app.py", "--no-browser", "--port", str(port), *arguments)


def stop_app(process: subprocess.Popen[str]) -> None:
    """As a user's Ctrl+C or a service manager ends it."""
    process.terminate()
    process.communicate(timeout=60)


def run_server(port: int, *arguments: str) -> subprocess.Popen[str]:
    """A Python program that serves the page at this port, once it answers."""
    command = [sys.executable, *arguments]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process
    process.kill()
    raise AssertionError(f"{' '.join(command)} does not answer:\n{process.communicate()[0]}")
