"""From the generation thread to one stream on an event loop: the newest output, or the reason why there is no more.

An output holds all tokens so far, so the newest replaces the ones before it and a slow reader costs no memory. Knows
nothing of models; a token loop writes, `InProcessEngine.stream` reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from playground.types import Timings


class AbortedError(Exception):
    """Someone asked for the answer to end."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a request has come to.

    tokens: all that were generated so far.
    finished: no more come, because of an end-of-sequence token or of the length.
    started: when its turn came, in seconds of `perf_counter`.
    """

    tokens: Sequence[int]
    finished: bool
    started: float


class Inbox:
    """Made in the reading coroutine; belongs to the event loop that runs then."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._arrival = asyncio.Event()
        self._output: Output | None = None
        self._end: Exception | None = None
        self._created = perf_counter()
        self._started: float | None = None
        self._first: float | None = None
        self._last = 0.0

    def put(self, output: Output) -> None:
        """Called in the generation thread, followed by `wake`."""
        self._last = perf_counter()
        if self._started is None:
            self._started = output.started
        if self._first is None:
            self._first = self._last
        self._output = output

    def end(self, reason: Exception) -> None:
        """No more outputs come: `take` raises the reason. The first reason counts. From any thread."""
        if self._end is None:
            self._end = reason
        wake([self])

    async def take(self) -> Output:
        """The newest output not taken yet; when none is left and none will come, raises what `end` was given."""
        while self._output is None:
            if self._end is not None:
                raise self._end
            await self._arrival.wait()
            self._arrival.clear()
        output, self._output = self._output, None
        return output

    @property
    def timings(self) -> Timings:
        """Measured where the tokens are made, so a slow reader does not show in them."""
        if self._started is None or self._first is None:
            return Timings(perf_counter() - self._created, 0.0, 0.0)
        return Timings(self._started - self._created, self._first - self._started, self._last - self._first)

    def _announce(self) -> None:
        self._arrival.set()


def wake(inboxes: Iterable[Inbox]) -> None:
    """Tell the readers, with one call a loop: each call is a system call at which the generation thread waits."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Inbox]] = {}
    for inbox in inboxes:
        by_loop.setdefault(inbox.loop, []).append(inbox)
    for loop, readers in by_loop.items():
        with suppress(RuntimeError):  # that loop is closed: nobody reads any more
            loop.call_soon_threadsafe(_announce, readers)


def _announce(readers: list[Inbox]) -> None:
    for inbox in readers:
        inbox._announce()
