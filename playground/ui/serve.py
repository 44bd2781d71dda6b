"""Runs the page until the process is told to end, then lets everything go within seconds.

The engines answer on the server's event loop, so they are closed there. Called by app.py.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr

from playground.errors import PlaygroundError
from playground.settings import believe_no_forwarded_address

if TYPE_CHECKING:
    from playground.engines.pooling.protocol import Pool

CLOSE_S = 5.0
"""Seconds that the engines get to close."""

END_S = 9.0
"""Seconds until the process ends in any case, whatever a thread is doing; the processes of the engines end with it."""

WAKE_S = 0.5
"""Python runs signal handlers in this thread alone, and the system may give a signal to another, which wakes nobody."""

log = logging.getLogger(__name__)


def serve(build: Callable[[], gr.Blocks], pool: Pool, models: Sequence[str], launch: dict[str, Any]) -> None:
    """Build the page and serve it until SIGINT or SIGTERM. `models` are loaded in the background once it is there, but
    for those that a server of the catalog has."""
    ended = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        loops.append(asyncio.get_running_loop())
        yield

    believe_no_forwarded_address()
    launch = {**launch, "app_kwargs": {**launch["app_kwargs"], "lifespan": lifespan}}
    page = asyncio.run(_launched(build, launch, ended))
    print(f"The playground is at {page.local_url} (Ctrl+C ends it).", flush=True)
    try:
        pool.preload([model for model in models if not pool.elsewhere.servers_of(model)])
        while not ended.wait(WAKE_S):
            pass
    finally:
        _end_for_certain()
        _close(pool, loops[0])
        page.close(verbose=False)


async def _launched(build: Callable[[], gr.Blocks], launch: dict[str, Any], ended: threading.Event) -> gr.Blocks:
    """In a running loop, for outside of one Gradio makes a new loop for every lock, and closes none."""
    page = build()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        page.launch(**launch)
    except OSError as error:
        raise PlaygroundError(f"The page cannot be served: {error}") from error
    return page


def _close(pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
    try:
        asyncio.run_coroutine_threadsafe(pool.close(), loop).result(CLOSE_S)
    except Exception:
        log.exception("closing the engines")


def _end_for_certain() -> None:
    timer = threading.Timer(END_S, os._exit, args=[1])
    timer.daemon = True
    timer.start()
