"""One model on its way: how far it is, who waits for it, and that someone gave it up.

Made by the pool, one a load; told by the thread that loads, watched by every stream that waits. Knows neither where
the model goes nor who decides about it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from typing import TypeVar

from playground.engines.base import Engine
from playground.types import LoadProgress

PROGRESS_INTERVAL_S = 0.25
LOG_INTERVAL_S = 5.0

T = TypeVar("T")

log = logging.getLogger(__name__)


def shared(future: Future[T]) -> Future[T]:
    """The new future, so that no task that waits for it and is cancelled cancels it for the others."""
    future.set_running_or_notify_cancel()
    return future


class Loading:
    """`arrived` is the engine, or why there is none; whoever holds the pool's lock sets it, once."""

    def __init__(self, name: str) -> None:
        self.arrived: Future[Engine] = shared(Future())
        self.cancelled = threading.Event()
        self.progress = LoadProgress("waiting")
        self._name = name
        self._logged_at = float("-inf")

    @property
    def is_done(self) -> bool:
        return self.arrived.done()

    def report(self, progress: LoadProgress) -> None:
        """Called from any thread, often."""
        now, changed = time.monotonic(), progress.stage != self.progress.stage
        self.progress = progress
        if changed or now - self._logged_at >= LOG_INTERVAL_S:
            self._logged_at = now
            log.info("%s: %s", self._name, _in_words(progress))

    def give_up(self, error: BaseException) -> None:
        """Whoever waits is told `error`; the thread that loads sees `cancelled`."""
        self.cancelled.set()
        self.arrived.set_exception(error)

    async def until_done(self) -> AsyncGenerator[LoadProgress, None]:
        """How far it is, a few times a second; nothing where the engine is there already."""
        if self.is_done:
            return
        arrival = asyncio.wrap_future(self.arrived)
        arrival.add_done_callback(lambda done: done.cancelled() or done.exception())  # `arrived` tells it
        try:
            while not self.is_done:
                yield self.progress
                await asyncio.wait([arrival], timeout=PROGRESS_INTERVAL_S)
        finally:
            arrival.cancel()


def _in_words(progress: LoadProgress) -> str:
    if not progress.total_bytes:
        return progress.stage
    share = progress.done_bytes / progress.total_bytes
    return f"{progress.stage}, {progress.done_bytes:,} of {progress.total_bytes:,} bytes ({share:.0%})"
