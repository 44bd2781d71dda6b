"""From the thread that reads a grant to one panel's stream: what comes before the reader does is kept for it.

Knows no grant. Used by `grant`.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One thread writes; one task reads, on whatever event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._letters: list[T] = []
        self._reader: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, letter: T) -> None:
        with self._lock:
            self._letters.append(letter)
            reader = self._reader
        if reader is not None:
            loop, arrival = reader
            with suppress(RuntimeError):  # that loop is closed: nobody reads any more
                loop.call_soon_threadsafe(arrival.set)

    async def take(self) -> list[T]:
        """All that have come; waits while there are none."""
        arrival = asyncio.Event()
        with self._lock:
            self._reader = (asyncio.get_running_loop(), arrival)
            if self._letters:
                arrival.set()
        await arrival.wait()
        with self._lock:
            letters, self._letters = self._letters, []
        return letters
