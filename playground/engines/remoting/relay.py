"""Runs an asynchronous generator in a task of its own, so that it can be ended at any moment and from any thread.

A connection is opened, read and closed in one task, whoever waits for what it gives. Knows no server. Called by
`remote`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Generic, TypeVar

AHEAD = 64
"""Items that may wait to be taken; then the generator waits too, and the server behind it."""

T = TypeVar("T")


class Relay(Generic[T]):
    """Made in a running event loop, to which it belongs; taken from by one coroutine; `close` it there."""

    def __init__(self, source: AsyncGenerator[T, None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._items: deque[T] = deque()
        self._arrival, self._room = asyncio.Event(), asyncio.Event()
        self._over = False
        self._reason: Exception | None = None
        self._task = asyncio.create_task(self._run(source))

    async def take(self) -> T | None:
        """The next item, None behind the last. Behind it, raises what the generator raised, or `end` was given."""
        while not self._items:
            if self._reason is not None:
                raise self._reason
            if self._over:
                return None
            self._arrival.clear()
            await self._arrival.wait()
        self._room.set()
        return self._items.popleft()

    def end(self, reason: Exception) -> None:
        """The generator is closed, and `take` raises the reason. The first reason counts. From any thread."""
        with suppress(RuntimeError):  # that loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._end, reason)

    async def close(self) -> None:
        """Returns when the generator is closed."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    def _end(self, reason: Exception | None) -> None:
        if not self._over:
            self._over, self._reason = True, reason
            self._arrival.set()
            self._task.cancel()

    async def _run(self, source: AsyncGenerator[T, None]) -> None:
        reason: Exception | None = None
        try:
            async with aclosing(source):
                async for item in source:
                    await self._put(item)
        except Exception as error:
            reason = error
        self._end(reason)

    async def _put(self, item: T) -> None:
        self._items.append(item)
        self._arrival.set()
        while len(self._items) >= AHEAD:
            self._room.clear()
            await self._room.wait()
