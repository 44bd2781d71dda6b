"""Which answers of servers are running, by the requests that they answer; ends them, from any thread.

Knows neither servers nor text. One for all engines of `servers`, so that a request can be ended by its id alone.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from playground.engines.remoting.relay import Relay
from playground.errors import EngineError

T = TypeVar("T")


class AbortedError(Exception):
    """Someone asked for the answer to end."""


class Desk:
    def __init__(self) -> None:
        self._running: dict[str, tuple[object, Relay]] = {}
        self._closed: Exception | None = None
        self._lock = threading.Lock()

    @asynccontextmanager
    async def place(self, owner: object, request_id: str, source: AsyncGenerator[T, None]) -> AsyncIterator[Relay[T]]:
        """Run the source for a request; at the end it is closed.

        Raises:
            EngineError: a request with this id is being answered, or what `close` was given.
        """
        relay = Relay(source)
        try:
            with self._lock:
                if self._closed is not None:
                    raise self._closed
                if request_id in self._running:
                    raise EngineError(
                        f"A request with the id {request_id} is being answered: wait for it, or use another id."
                    )
                self._running[request_id] = owner, relay
            try:
                yield relay
            finally:
                with self._lock:
                    del self._running[request_id]
        finally:
            await relay.close()

    def end(self, request_id: str, reason: Exception) -> None:
        """What waits for the answer to a request is raised the reason; unknown ids are ignored."""
        with self._lock:
            running = self._running.get(request_id)
        if running is not None:
            running[1].end(reason)

    def close(self, reason: Exception) -> None:
        """Every answer ends, and none begins any more."""
        with self._lock:
            self._closed = reason
        self.end_all(reason)

    def end_all(self, reason: Exception, owner: object = None) -> None:
        """As `end`, for every answer, or for those of one owner."""
        with self._lock:
            relays = [relay for whose, relay in self._running.values() if owner is None or whose is owner]
        for relay in relays:
            relay.end(reason)
